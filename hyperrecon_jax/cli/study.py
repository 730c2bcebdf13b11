"""Carry out a study: train and evaluate many runs by a plan, and compare them in tables, pictures or a report.

HyperRecon against U-Nets, data-driven sampling, other hypernetworks than the paper's:

    hyperrecon study --plan baselines
    hyperrecon study --plan dhs --widths 32 --seeds 1
    hyperrecon study --plan improvements

The paper on a laptop: what it would do and how long it would take; what one figure needs:

    hyperrecon study --plan reproduce:laptop --dry-run
    hyperrecon study --plan reproduce:laptop --only fig4

Trained runs against classical methods on real people, a sub-folder for each:

    hyperrecon study --plan real_people --root my_people --runs runs/quickstart

The same command again resumes, and uses what is finished. A plan file says which of the options it has.
"""

import pathlib
import re
from typing import Any

from absl import flags
from ml_collections import config_flags

from hyperrecon_jax.cli import command, config_flag
from hyperrecon_jax.runs import shipped_configs
from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import InputError

PLAN = flags.DEFINE_string("plan", None, "FILE[:VARIANT] or NAME[:VARIANT] of the plan.")
OUT = flags.DEFINE_string("out", None, "Folder of the study (default: runs/ and the name of the plan).")
ONLY = flags.DEFINE_list("only", [], "Parts of the plan to carry out, such as fig4 or seed-0 (default: all).")
DRY_RUN = flags.DEFINE_bool("dry-run", False, "Say what would be done and how long it would take, and stop.")
CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "FILE or NAME[:VARIANT] of the experiment (default: the plan's); --config.key=value changes a setting.",
    sys_argv=config_flag.ARGV,
)
SEEDS = flags.DEFINE_integer("seeds", None, "Runs of each network.")
LAMS = flags.DEFINE_list("lams", None, "Lambdas of the U-Nets.")
UNETS_RATE = flags.DEFINE_float("unets_rate", None, "Learning rate of the U-Nets.")
WIDTHS = flags.DEFINE_list("widths", None, "Widths d of the hypernetwork.")
VARIANTS = flags.DEFINE_list("variants", None, "Variants of the hypernetwork.")
RATES = flags.DEFINE_list("rates", None, "A learning rate for each width or variant.")
POINTS = flags.DEFINE_integer("points", None, "Points of the landscape along each lambda.")
ROOT = flags.DEFINE_string("root", None, "Folder of images, a sub-folder for each person.")
RUNS = flags.DEFINE_list("runs", None, "Folders of trained runs.")
SLICES = flags.DEFINE_integer("slices", None, "Slices of each person at most.")


def study() -> int:
    """Carry out a study by the flags; returns the exit status."""
    if PLAN.value is None:
        raise InputError(adapt("Say what to study: --plan baselines (see --help)."))
    options = _plan_options()
    file = shipped_configs.find(PLAN.value, folder=shipped_configs.FOLDER / "plans", flag="--plan")
    out = _folder(file)
    paths.check_folder(out, argument="--out")
    from hyperrecon_jax.runtime import machine  # after the checks: JAX takes seconds to import
    from hyperrecon_jax.studies.plan import read_plan
    from hyperrecon_jax.studies.study import run_study, show_plan

    machine.configure_jax()
    plan = read_plan(file, options)
    if DRY_RUN.value:
        show_plan(plan, out, only=ONLY.value)
        return 0
    return 0 if run_study(plan, out, only=ONLY.value) else 130


def _plan_options() -> dict[str, Any]:
    """Return the options of the plan that the command line has."""
    runs = RUNS.value and [str(paths.expand(run, argument="--runs")) for run in RUNS.value]
    if runs and len({pathlib.Path(run).name for run in runs}) < len(runs):  # the rows of a study have these names
        raise InputError(f"--runs must be folders of different names, got {','.join(runs)}.")
    if WIDTHS.value is not None and not all(re.fullmatch("[1-9][0-9]{0,8}", width) for width in WIDTHS.value):
        raise InputError(f"--widths must be whole numbers above 0, got {','.join(WIDTHS.value)}.")
    values: dict[str, Any] = {
        "config": CONFIG.value,
        "seeds": SEEDS.value,
        "lams": LAMS.value and command.parse_numbers("lams", LAMS.value),
        "unets_rate": UNETS_RATE.value,
        "widths": WIDTHS.value and list(map(int, WIDTHS.value)),
        "variants": VARIANTS.value,
        "rates": RATES.value and command.parse_numbers("rates", RATES.value),
        "points": POINTS.value,
        "root": ROOT.value and str(command.parse_path(ROOT)),
        "runs": runs,
        "slices": SLICES.value,
    }
    return {name: value for name, value in values.items() if value is not None}


def _folder(file: str) -> pathlib.Path:
    """Return the folder of the study, for a plan FILE or FILE:VARIANT."""
    if folder := command.parse_path(OUT):
        return folder
    path, _, variant = file.partition(":")
    return pathlib.Path("runs", "-".join(filter(None, [pathlib.Path(path).stem, variant])))


def main() -> None:
    command.run(study)
