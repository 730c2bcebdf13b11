"""Reproduce the paper: train what is missing, evaluate, and write a report that judges its claims.

    python -m bin.reproduce --scale laptop               # an hour and a half on two CPU cores
    python -m bin.reproduce --scale laptop --dry-run     # what it would do, and how long it would take
    python -m bin.reproduce --scale laptop --only fig4   # what one figure needs
    python -m bin.reproduce --scale gpu                  # the paper's networks and images, fewer steps; or paper: all of it

The report is OUT/report/index.html and OUT/report/report.pdf. The same command goes on where it was stopped, and uses
what is finished. --only takes table1, fig3, fig4, fig5, fig6, fig7, dice, dhs; the report is of all that is in the folder.
"""

import pathlib

from absl import flags

from bin import _cli

SCALE = flags.DEFINE_string("scale", None, "laptop, gpu or paper.")
OUT = flags.DEFINE_string("out", None, "Folder for the runs and the report (default: runs/reproduce-SCALE).")
ONLY = flags.DEFINE_list("only", [], "What to reproduce: any of table1, fig3, fig4, fig5, fig6, fig7, dice, dhs.")
DRY_RUN = flags.DEFINE_bool("dry-run", False, "Say what would be done and how long it would take, and stop.")
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def reproduce() -> int:
    from hyperrecon_jax.runtime import machine
    from hyperrecon_jax.runtime.errors import InputError
    from hyperrecon_jax.studies import paper  # after the flags: JAX takes seconds to import
    from hyperrecon_jax.studies.paper.sizes import SCALES

    if SCALE.value not in SCALES:
        raise InputError(f"--scale must be one of {', '.join(SCALES)}; got {SCALE.value!r}.")
    scale, out = SCALES[SCALE.value](), pathlib.Path(OUT.value or f"runs/reproduce-{SCALE.value}")
    machine.configure_jax()
    if DRY_RUN.value:
        paper.show_plan(scale, out, configs=CONFIGS, only=ONLY.value)
        return 0
    return 0 if paper.reproduce(scale, out, configs=CONFIGS, only=ONLY.value) else 130


if __name__ == "__main__":
    _cli.main(reproduce)
