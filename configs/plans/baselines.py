"""One network for every lambda against a network for each (Sec. V-D.1): the study of docs/baselines.md.

    python -m bin.study --plan configs/plans/baselines.py                   # 8-fold CS-MRI: about an hour on two CPU cores
    python -m bin.study --plan configs/plans/baselines.py --config configs/laptop_sl.py:superres --unets_rate 1e-2 --seeds 1
    python -m bin.study --plan configs/plans/baselines.py --config configs/paper_csmri_supervised_8x.py --seeds 1

With a config of your own, --unets_rate is its learning rate by default. The last line is for an accelerator.
"""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from hyperrecon_jax.studies import baselines
from hyperrecon_jax.studies.plan import Plan, read_config

CONFIGS = Path(__file__).parents[1]


def get_plan(
    *,
    config: ConfigDict | None = None,
    lams: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 0.95),
    unets_rate: float | None = None,
    seeds: int = 3,
) -> Plan:
    if config is None:
        config = read_config(CONFIGS, "laptop_sl.py:csmri")
        unets_rate = 1e-2 if unets_rate is None else unets_rate  # the better of two rates
    return baselines.make_plan(config, lams=lams, unets_rate=unets_rate, seeds=seeds)
