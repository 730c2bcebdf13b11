"""Trained runs against classical methods on people of your own: the study of docs/experiments/real_people.md.

    python -m bin.study --plan configs/plans/real_people.py --root my_people
    python -m bin.study --plan configs/plans/real_people.py --root my_people --runs runs/quickstart --slices 10

`my_people` has a sub-folder of images for each person. People in whose images a run was trained are left out. sigpy must be
installed: pip install hyperrecon_jax[multicoil].
"""

from collections.abc import Sequence

from hyperrecon_jax.studies import real_people
from hyperrecon_jax.studies.plan import Plan


def get_plan(*, root: str = "", runs: Sequence[str] = (), slices: int = 2) -> Plan:
    return real_people.make_plan(root=root, runs=runs, slices=slices)
