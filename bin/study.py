"""Carry out a study: train and evaluate many runs by a plan, compare them, and write tables, pictures or a report.

    python -m bin.study --plan configs/plans/reproduce.py:laptop --dry-run     # the paper: what it would do, and how long
    python -m bin.study --plan configs/plans/reproduce.py:laptop --only fig4   # what one figure needs
    python -m bin.study --plan configs/plans/baselines.py                      # HyperRecon against U-Nets
    python -m bin.study --plan configs/plans/dhs.py --widths 32 --seeds 1      # data-driven sampling
    python -m bin.study --plan configs/plans/improvements.py                   # other hypernetworks than the paper's

The same command resumes where it was stopped, and uses what is finished. A plan file says which of the options it has.
"""

import pathlib
from typing import Any

from absl import flags
from ml_collections import config_flags

from bin import _cli

PLAN = flags.DEFINE_string("plan", None, "FILE[:variant] with the plan.")
OUT = flags.DEFINE_string("out", None, "Folder of the study (default: runs/ and the name of the plan).")
ONLY = flags.DEFINE_list("only", [], "Parts of the plan to carry out, such as fig4 or seed-0 (default: all).")
DRY_RUN = flags.DEFINE_bool("dry-run", False, "Say what would be done and how long it would take, and stop.")
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE[:variant] with the experiment (default: the plan's); --config.key=value changes a setting."
)
SEEDS = flags.DEFINE_integer("seeds", None, "Runs of each network.")
LAMS = flags.DEFINE_list("lams", None, "Lambdas of the U-Nets.")
UNETS_RATE = flags.DEFINE_float("unets_rate", None, "Learning rate of the U-Nets.")
WIDTHS = flags.DEFINE_list("widths", None, "Widths d of the hypernetwork.")
VARIANTS = flags.DEFINE_list("variants", None, "Variants of the hypernetwork.")
RATES = flags.DEFINE_list("rates", None, "A learning rate for each width or variant.")
POINTS = flags.DEFINE_integer("points", None, "Points of the landscape along each lambda.")


def study() -> int:
    from hyperrecon_jax.runtime.errors import InputError

    if PLAN.value is None:
        raise InputError("Say what to study: --plan configs/plans/baselines.py (see --help).")
    plan_options = options()

    from hyperrecon_jax.runtime import machine  # after the checks: JAX takes seconds to import
    from hyperrecon_jax.studies.plan import read_plan
    from hyperrecon_jax.studies.study import run_study, show_plan

    machine.configure_jax()
    plan, out = read_plan(PLAN.value, plan_options), folder()
    if DRY_RUN.value:
        show_plan(plan, out, only=ONLY.value)
        return 0
    return 0 if run_study(plan, out, only=ONLY.value) else 130


def options() -> dict[str, Any]:
    """The options of the plan that the command line has."""
    from hyperrecon_jax.runtime.errors import InputError

    if WIDTHS.value is not None and not all(width.isdecimal() and int(width) > 0 for width in WIDTHS.value):
        raise InputError(f"--widths must be whole numbers above 0, got {','.join(WIDTHS.value)}.")
    values = {
        "config": CONFIG.value,
        "seeds": SEEDS.value,
        "lams": LAMS.value and _cli.numbers("lams", LAMS.value),
        "unets_rate": UNETS_RATE.value,
        "widths": WIDTHS.value and [int(width) for width in WIDTHS.value],
        "variants": VARIANTS.value,
        "rates": RATES.value and _cli.numbers("rates", RATES.value),
        "points": POINTS.value,
    }
    return {name: value for name, value in values.items() if value is not None}


def folder() -> pathlib.Path:
    """The folder of the study."""
    if OUT.value:
        return pathlib.Path(OUT.value)
    file, _, variant = PLAN.value.partition(":")
    return pathlib.Path("runs") / "-".join(filter(None, [pathlib.Path(file).stem, variant]))


if __name__ == "__main__":
    _cli.main(study)
