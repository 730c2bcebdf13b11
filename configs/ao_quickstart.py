"""A first HyperRecon without ground truth: amortized optimization of 8-fold CS-MRI on 64 x 64 slices, for a laptop.

    python -m bin.train --config configs/ao_quickstart.py      # data-driven sampling (DHS)
    python -m bin.train --config configs/ao_quickstart.py:uhs  # the same with uniform sampling (UHS)

Training sees measurements alone: the loss weighs agreement with them (lambda_1 = 1) against small weights (lambda_2 = 1)
and small total variation (lambda_2 = 0). docs/ao.md says what to expect, how this was set up, and what DHS does for it.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import default_config, select_variant


def get_config(variant: str = "dhs") -> ConfigDict:
    config = default_config()
    config.data.size = 64
    config.data.subjects = (48, 4, 8)
    config.data.slices = 12

    config.task.acceleration = 8.0

    config.loss.terms = ("data_consistency", "weight_l1", "total_variation")
    config.loss.scales = (0.01, 2.7e-4, 0.004)  # tuned, as the paper's: see docs/ao.md
    config.loss.ground_truth = False

    config.model.width = 8
    config.model.hyper_width = 32
    config.model.conditioning = "dense"  # the paper's: docs/ao.md tests what the paper says of its hypernetworks
    config.model.normalize = False  # as when its figures were measured

    config.train.steps = 3000
    config.train.batch = 8
    config.train.learning_rate = 3e-3
    config.train.warmup = 50
    config.train.schedule = "cosine"
    config.train.log_every = 50
    config.train.save_every = 1000
    config.dhs.keep = select_variant(variant, {"dhs": 2, "uhs": None})
    return config
