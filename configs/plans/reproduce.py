"""The whole paper at a scale, with a report that judges its claims: docs/reproduction.md.

    python -m bin.study --plan configs/plans/reproduce.py:laptop              # an hour and a half on two CPU cores
    python -m bin.study --plan configs/plans/reproduce.py:laptop --dry-run    # what it would do, and how long it would take
    python -m bin.study --plan configs/plans/reproduce.py:laptop --only fig4  # what one figure needs
    python -m bin.study --plan configs/plans/reproduce.py:gpu                 # the paper's networks and images, fewer steps
    python -m bin.study --plan configs/plans/reproduce.py:paper               # all of it

The report is OUT/report/index.html, and OUT/report/report.pdf where a Chromium can print it. It shows everything that the
folder holds. --only takes table1, fig3, fig4, fig5, fig6, fig7, dice, dhs.
"""

from pathlib import Path

from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies.paper.pieces import SCALES
from hyperrecon_jax.studies.paper.report import make_plan
from hyperrecon_jax.studies.plan import Plan

CONFIGS = Path(__file__).parents[1]


def get_plan(scale: str = "") -> Plan:
    if scale not in SCALES:
        raise InputError(f"The scale must be one of {', '.join(SCALES)}, as in reproduce.py:laptop; got {scale!r}.")
    return make_plan(SCALES[scale](CONFIGS))
