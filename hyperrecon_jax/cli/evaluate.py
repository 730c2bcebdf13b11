"""Evaluate a run over all of lambda, or compare several runs: scores, tables, pictures.

    hyperrecon evaluate --run runs/quickstart
    hyperrecon evaluate --run runs/quickstart --data mine.npy --metrics psnr,ssim,mae --lams 20 --out mine
    hyperrecon evaluate --run runs/quickstart --config quickstart --config.data.seed=7 --out other
    hyperrecon evaluate --run runs/quickstart --segmenter runs/segment_quickstart
    hyperrecon evaluate --run runs/quickstart --acquisition acceleration=2:4:8,sigma=0.01,mask=random_lines
    hyperrecon evaluate --compare runs/quickstart runs/baselines

Results are in RUN/evaluation, those of a comparison in runs/comparison, unless --out names another folder. With
--acquisition, each acquisition has a folder of its own in it. The same command again resumes an evaluation that was
interrupted.
"""

import contextlib
import pathlib
from typing import Any

from absl import flags
from ml_collections import config_flags

from hyperrecon_jax.cli import command, config_flag, process_flags
from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import InputError

RUN = flags.DEFINE_string("run", None, "Folder of a run, or 'pretrained': the model of the package.")
DATA = flags.DEFINE_string("data", None, "A .npy file of images to score instead of the run's test images.")
CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "FILE or NAME of a config whose test images are scored instead; --config.data.key=value.",
    sys_argv=config_flag.ARGV,
)
METRICS = flags.DEFINE_list(
    "metrics", None, "Any of psnr,rpsnr,ssim,mae,mse,hfen,edges,texture,data_consistency,total_variation,..."
)
LAMS = flags.DEFINE_integer("lams", None, "Points of the grid along each lambda (default: 100 for one, 21 for two).")
IMAGES = flags.DEFINE_integer("images", None, "Number of test images, evenly spaced (default: all).")
SEGMENTER = flags.DEFINE_string("segmenter", None, "Folder of a run that segments: adds Dice of the reconstructions.")
ACQUISITION = flags.DEFINE_string(
    "acquisition", None, "Acquisitions, such as acceleration=2:4:8,sigma=0.01,mask=random_lines (default: that of the run)."
)
OUT = flags.DEFINE_string("out", None, "Folder for the results.")
COMPARE = flags.DEFINE_bool("compare", False, "Compare the runs whose folders follow: one table, one picture.")
flags.adopt_module_key_flags(process_flags)


def evaluate(folders: list[str]) -> int:
    """Evaluate a run, or compare the runs in `folders`, by the flags; returns the exit status."""
    if COMPARE.value:
        return _compare(folders)
    run, out, segmenter = (command.parse_path(flag) for flag in (RUN, OUT, SEGMENTER))
    if folders or run is None:
        raise InputError(f"Say what to evaluate: --run RUN{f', not {folders[0]!r}' if folders else ''} (see --help).")
    data = _data_settings()
    from hyperrecon_jax.commands import evaluate as evaluate_command
    from hyperrecon_jax.commands.evaluate_acquisitions import evaluate_acquisitions
    from hyperrecon_jax.runs import slim_run
    from hyperrecon_jax.runtime import machine  # after the flags: JAX takes seconds to import

    machine.configure_jax()
    options: dict[str, Any] = {
        "data": data,
        "metrics": METRICS.value,
        "points": LAMS.value,
        "count": IMAGES.value,
        "segmenter": segmenter,
    }
    with process_flags.connect_processes(), slim_run.writable_run(run) as folder:
        results = out or folder / "evaluation"
        if ACQUISITION.value is None:
            evaluate_command.evaluate(folder, results, **options)
        else:
            evaluate_acquisitions(folder, results, ACQUISITION.value, **options)
    return 0


def _compare(folders: list[str]) -> int:
    """Compare the runs in `folders`; returns the exit status."""
    if RUN.value or len(folders) < 2:
        raise InputError("--compare takes the folders of two runs or more: --compare RUN RUN ...")
    for flag in (DATA, CONFIG, METRICS, LAMS, IMAGES, SEGMENTER, ACQUISITION):
        if flag.value is not None:
            raise InputError(f"--{flag.name} is of no use with --compare, which takes the evaluations of the runs.")
    runs = [paths.expand(folder, argument="--compare") for folder in folders]
    out = command.parse_path(OUT) or pathlib.Path("runs", "comparison")
    from hyperrecon_jax.commands import compare
    from hyperrecon_jax.runs import slim_run
    from hyperrecon_jax.runtime import machine  # after the flags: JAX takes seconds to import

    machine.configure_jax()
    with contextlib.ExitStack() as stack:
        compare.compare([stack.enter_context(slim_run.writable_run(run)) for run in runs], out)
    return 0


def _data_settings() -> dict[str, Any] | None:
    """Return `config.data` of the images to score, or None for the run's own test images."""
    if DATA.value and CONFIG.value:
        raise InputError("--data and --config both name images: give one of them.")
    if (DATA.value or CONFIG.value) and not OUT.value:
        raise InputError("Say where the scores of images that are not the run's own go: --out DIR.")
    if DATA.value:
        return {"source": "arrays", **dict.fromkeys(("train", "val", "test"), str(command.parse_path(DATA)))}
    if not CONFIG.value:
        return None
    from hyperrecon_jax.runs.config import check_key, flatten  # takes a second

    for key in flatten(CONFIG.value):
        check_key(key)
    return CONFIG.value.to_dict().get("data", {})


def main() -> None:
    command.run(evaluate, takes_folders=True)
