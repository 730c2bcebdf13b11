"""A first look."""

from ml_collections import ConfigDict

from hyperrecon_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.size = 64
    config.data.subjects = (24, 3, 6)
    config.data.slices = 20
    config.model.hyper_width = 32
    config.train.steps = 300
    config.train.batch = 16
    return config
