"""Data-driven sampling (DHS) against uniform sampling (UHS), at three widths of the hypernetwork: the study of docs/ao.md.

    python -m bin.study --plan configs/plans/dhs.py                         # an hour or two on two CPU cores
    python -m bin.study --plan configs/plans/dhs.py --config configs/ao_quickstart.py --config.train.steps=200 \
        --seeds 1 --points 9 --out runs/trial

With a config of your own, --rates are its learning rate by default.
"""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from hyperrecon_jax.studies import dhs
from hyperrecon_jax.studies.plan import Plan, read_config

CONFIGS = Path(__file__).parents[1]
RATES = {4: 1e-2, 32: 3e-3, 128: 1e-3}  # by width; docs/ao.md says why they differ


def get_plan(
    *,
    config: ConfigDict | None = None,
    widths: Sequence[int] = (4, 32, 128),
    rates: Sequence[float] = (),
    seeds: int = 3,
    points: int = 11,
) -> Plan:
    if config is None:
        config = read_config(CONFIGS, "ao_quickstart.py")
        rates = rates or [RATES.get(width, config.train.learning_rate) for width in widths]
    return dhs.make_plan(config, widths=widths, rates=rates, seeds=seeds, points=points)
