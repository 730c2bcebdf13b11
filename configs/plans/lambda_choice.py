"""Does lambda give a real choice on people of your own? The study of docs/experiments/lambda_choice.md.

    python -m bin.study --plan configs/plans/lambda_choice.py --root my_people
    python -m bin.study --plan configs/plans/lambda_choice.py --root my_people --runs runs/quickstart,runs/other --slices 2

`my_people` has a sub-folder of images for each person. People in whose images a run was trained are left out.
"""

from collections.abc import Sequence

from hyperrecon_jax.studies import lambda_choice
from hyperrecon_jax.studies.plan import Plan


def get_plan(*, root: str = "", runs: Sequence[str] = ("pretrained",), slices: int = 1) -> Plan:
    return lambda_choice.make_plan(root=root, runs=runs, slices=slices)
