"""Reproduce the paper: train what is missing, evaluate, and judge its claims in a report.

    hyperrecon reproduce --scale laptop
    hyperrecon reproduce --scale laptop --dry-run
    hyperrecon reproduce --scale laptop --only fig4
    hyperrecon reproduce --scale gpu

The scale `laptop` takes an hour and a half on two CPU cores. `gpu` has the paper's networks and images with fewer steps,
`paper` has all of the paper. --dry-run says what would be done and how long it would take. --only takes table1, fig3, fig4,
fig5, fig6, fig7, dice, dhs, and does what these need; the report is about everything in the folder.

The report is OUT/report/index.html and OUT/report/report.pdf. The same command again resumes, and uses what is finished.
"""

import pathlib

from absl import flags

from hyperrecon_jax.cli import command
from hyperrecon_jax.runs import shipped_configs
from hyperrecon_jax.runtime.errors import InputError

SCALE = flags.DEFINE_string("scale", None, "laptop, gpu or paper.")
OUT = flags.DEFINE_string("out", None, "Folder for the runs and the report (default: runs/reproduce-SCALE).")
ONLY = flags.DEFINE_list("only", [], "What to reproduce: any of table1, fig3, fig4, fig5, fig6, fig7, dice, dhs.")
DRY_RUN = flags.DEFINE_bool("dry-run", False, "Say what would be done and how long it would take, and stop.")


def reproduce() -> int:
    """Reproduce the paper by the flags; returns the exit status."""
    from hyperrecon_jax.runtime import machine
    from hyperrecon_jax.studies import paper  # after the flags: JAX takes seconds to import
    from hyperrecon_jax.studies.paper.sizes import SCALES

    if SCALE.value not in SCALES:
        raise InputError(f"--scale must be one of {', '.join(SCALES)}; got {SCALE.value!r}.")
    scale, out = SCALES[SCALE.value](), pathlib.Path(OUT.value or f"runs/reproduce-{SCALE.value}")
    machine.start()
    if DRY_RUN.value:
        paper.show_plan(scale, out, configs=shipped_configs.FOLDER, only=ONLY.value)
        return 0
    return 0 if paper.reproduce(scale, out, configs=shipped_configs.FOLDER, only=ONLY.value) else 130


def main() -> None:
    command.run(reproduce)
