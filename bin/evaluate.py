"""Evaluate a run over all of lambda: scores of every test image, tables, pictures; or compare several runs.

    python -m bin.evaluate --run runs/quickstart
    python -m bin.evaluate --run runs/quickstart --data mine.npy --metrics psnr,ssim,mae --lams 20 --out mine
    python -m bin.evaluate --run runs/quickstart --config configs/quickstart.py --config.data.seed=7 --out other
    python -m bin.evaluate --run runs/quickstart --segmenter runs/segment_quickstart
    python -m bin.evaluate --compare runs/quickstart runs/baselines

Results are in RUN/evaluation, or in runs/comparison, by default. The same command goes on after an interruption.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from bin import _cli, _hosts

RUN = flags.DEFINE_string("run", None, "Folder of a run.")
DATA = flags.DEFINE_string("data", None, "A .npy file of images to score instead of the run's test images.")
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE whose test images are scored instead; --config.data.key=value."
)
METRICS = flags.DEFINE_list("metrics", None, "Any of psnr,rpsnr,ssim,mae,mse,hfen,data_consistency,total_variation,...")
LAMS = flags.DEFINE_integer("lams", None, "Points of the grid along each lambda (default: 100 for one, 21 for two).")
IMAGES = flags.DEFINE_integer("images", None, "How many test images, spread over the split (default: all).")
SEGMENTER = flags.DEFINE_string("segmenter", None, "Folder of a run that segments: adds Dice on reconstructions.")
OUT = flags.DEFINE_string("out", None, "Folder for the results.")
COMPARE = flags.DEFINE_bool("compare", False, "Compare the runs whose folders follow: one table, one picture.")
flags.adopt_module_key_flags(_hosts)


def evaluate(folders: list[str]) -> int:
    from hyperrecon_jax.commands import compare, evaluate
    from hyperrecon_jax.runtime import machine  # after the flags: JAX takes seconds to import
    from hyperrecon_jax.runtime.errors import InputError

    machine.start()
    if COMPARE.value:
        if RUN.value or len(folders) < 2:
            raise InputError("--compare takes the folders of two runs or more: --compare RUN RUN ...")
        compare.compare([pathlib.Path(folder) for folder in folders], pathlib.Path(OUT.value or "runs/comparison"))
        return 0
    if folders or not RUN.value:
        raise InputError(f"Say what to evaluate: --run RUN{f', not {folders[0]!r}' if folders else ''} (see --help).")
    if DATA.value and CONFIG.value:
        raise InputError("--data and --config both name images: give one of them.")
    if (DATA.value or CONFIG.value) and not OUT.value:
        raise InputError("Say where the scores of images that are not the run's own go: --out DIR.")
    data = CONFIG.value.to_dict()["data"] if CONFIG.value else None
    if DATA.value:
        data = {"source": "arrays", "train": DATA.value, "val": DATA.value, "test": DATA.value}
    folder = pathlib.Path(RUN.value)
    with _hosts.joined():
        evaluate.evaluate(
            folder,
            pathlib.Path(OUT.value) if OUT.value else folder / "evaluation",
            data=data,
            metrics=METRICS.value or evaluate.METRICS,
            points=LAMS.value,
            count=IMAGES.value,
            segmenter=pathlib.Path(SEGMENTER.value) if SEGMENTER.value else None,
        )
    return 0


if __name__ == "__main__":
    _cli.main(evaluate, folders=True)
