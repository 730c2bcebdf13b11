"""The segmentation network of the downstream study (Sec. V-E.1) in about two minutes on two CPU cores, on 96 x 96 slices.

    python -m bin.train --config configs/segment_quickstart.py

It learns from the clean images of the subjects that configs/quickstart.py trains on, with their labels; how it segments
reconstructions of the test subjects is the Dice score over lambda. Expect a Dice of 0.88 on the clean images of these: 0.84
for gray matter, 0.90 for white matter, 0.72 for CSF, which is one or two pixels thin here, and 0.91 for cortex.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.size = 96  # the subjects and slices of configs/quickstart.py: the same training and test sets
    config.data.subjects = (48, 4, 8)
    config.data.slices = 12
    config.data.seed = 2

    config.task.name = "segmentation"
    config.loss.terms = ("soft_dice",)
    config.loss.scales = (1.0,)
    config.lam.sampling = "constant"  # one term: there is no lambda

    config.model.width = 16
    config.model.hyper_width = 0
    config.model.residual = False

    config.train.steps = 1500
    config.train.batch = 4
    config.train.warmup = 100
    config.train.schedule = "cosine"
    config.train.log_every = 50
    config.train.save_every = 300
    return config
