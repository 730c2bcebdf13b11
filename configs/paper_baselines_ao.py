"""The baseline of HyperRecon in amortized optimization: a plain U-Net at each point of a grid of lambdas (Sec. V-C).

    python -m bin.train --config configs/paper_baselines_ao.py --config.loss.scales="(0.3,3e-4,4e-3)"

The paper says 19 values along each axis and prints 18, which are taken here: 324 U-Nets of 8-fold CS-MRI. They share the
loss scales of the HyperRecon to compare with: give those in its scales.json. A long job for an accelerator: a step trains
all of them, as many at once as memory has room for.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import paper_config

GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)


def get_config() -> ConfigDict:
    config = paper_config("L")
    config.task.acceleration = 8.0
    config.loss.terms = ("data_consistency", "weight_l1", "total_variation")
    config.loss.scales = (0.3, 3e-4, 4e-3)
    config.loss.ground_truth = False
    config.model.hyper_width = 0
    config.lam.sampling = "ensemble"
    config.lam.axes = (GRID, GRID)
    return config
