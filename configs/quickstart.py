"""A first HyperRecon in about five minutes on two CPU cores: noisy 6-fold CS-MRI of 96 x 96 pixels, error against texture.

    python -m bin.train --config configs/quickstart.py

The network is unrolled: it compares its result with the measurement three times. It learns from images of any contrast,
so it also works on scans of people. Expect the lowest error near lambda = 0 and the truest texture near lambda = 1.
docs/quickstart.md says why it is set up like this.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.source = "broad"
    config.data.size = 96
    config.data.subjects = (48, 4, 8)
    config.data.slices = 16

    config.task.acceleration = 6.0
    config.task.sigma = 0.05  # lambda shows where the measurement leaves room for choice

    config.loss.terms = ("mae", "texture")
    config.loss.scales = (20.0, 20.0)  # alpha: about 1/s of the two, up to a factor
    config.lam.sampling = "endpoints"
    config.lam.endpoint_probability = 0.3

    config.model.network = "unrolled"
    config.model.iterations = 3
    config.model.width = 8
    config.model.hyper_width = 32

    config.train.steps = 1000
    config.train.batch = 4  # many small steps beat few large ones in the same time
    config.train.learning_rate = 3e-3
    config.train.warmup = 50
    config.train.schedule = "cosine"
    config.train.clip = 20.0
    config.train.log_every = 25
    config.train.save_every = 250
    return config
