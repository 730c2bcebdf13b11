"""Other hypernetworks than the paper's, each against U-Nets at fixed lambdas: the study of docs/improvements.md.

    python -m bin.study --plan configs/plans/improvements.py                # hours on two CPU cores
    python -m bin.study --plan configs/plans/improvements.py --variants paper,circle+film --seeds 1
    python -m bin.study --plan configs/plans/improvements.py --config configs/laptop_sl.py:csmri --unets_rate 1e-2

A variant is one of circle, low_rank, mixture, film, two of them such as circle+film, or "paper". With a config
of your own, --rates and --unets_rate are its learning rate by default.
"""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from hyperrecon_jax.studies import improvements
from hyperrecon_jax.studies.plan import Plan, read_config

CONFIGS = Path(__file__).parents[1]
RATES = {"paper": 2e-3, "circle": 2e-3, "low_rank": 4e-3, "mixture": 1e-2, "film": 1e-2, "circle+film": 1e-2}


def get_plan(
    *,
    config: ConfigDict | None = None,
    variants: Sequence[str] = tuple(RATES),
    rates: Sequence[float] = (),
    lams: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 0.95),
    unets_rate: float | None = None,
    seeds: int = 3,
) -> Plan:
    if config is None:
        config = read_config(CONFIGS, "laptop_sl.py:csmri")
        config.train.steps, config.model.rank = 1200, 4
        rates = rates or [RATES.get(variant, config.train.learning_rate) for variant in variants]
        unets_rate = 1e-2 if unets_rate is None else unets_rate
    return improvements.make_plan(config, variants=variants, rates=rates, lams=lams, unets_rate=unets_rate, seeds=seeds)
