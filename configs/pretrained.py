"""The model that comes with the package: heads in any contrast, single coil, 2 to 8-fold, noise up to 0.1, three masks.

    python -m bin.train --config configs/pretrained.py

lambda = 0 is the lowest error, lambda = 1 keeps the texture. See docs/pretrained.md.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.source = "broad"
    config.data.size = 96
    config.data.subjects = (300, 10, 20)
    config.data.slices = 16

    config.task.acceleration = (2.0, 8.0)
    config.task.sigma = (0.0, 0.1)
    config.task.mask = ("poisson_disc", "random_lines", "equispaced_lines")

    config.loss.terms = ("mae", "texture")
    config.loss.scales = (20.0, 20.0)
    config.lam.sampling = "endpoints"
    config.lam.endpoint_probability = 0.3

    config.model.network = "unrolled"
    config.model.iterations = 3
    config.model.width = 16
    config.model.hyper_width = 32
    config.model.rank = 6

    config.train.steps = 4000
    config.train.batch = 4
    config.train.learning_rate = 2e-3
    config.train.warmup = 150
    config.train.schedule = "cosine"
    config.train.clip = 20.0
    config.train.log_every = 50
    config.train.save_every = 500
    config.train.validation_images = 32
    return config
