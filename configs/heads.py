"""The model that comes with the package: heads in any contrast, single coil, 2 to 8-fold, noise up to 0.1, three masks.

    python -m bin.train --config configs/heads.py
    python -m bin.train --config configs/heads.py:large

The first command trains on 96 x 96 pixels, the second goes on from its result on 192 x 192 pixels. lambda = 0 has the
lowest error, lambda = 1 keeps the texture. See docs/pretrained.md.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import default_config, select_variant


def get_config(variant: str = "small") -> ConfigDict:
    is_large = select_variant(variant, {"small": False, "large": True})
    config = default_config()
    config.data.source = "broad"
    config.data.size = 192 if is_large else 96
    config.data.subjects = (200, 5, 10) if is_large else (300, 10, 20)
    config.data.slices = 12 if is_large else 16
    config.data.seed = int(is_large)

    config.task.acceleration = (2.0, 8.0)
    config.task.sigma = (0.0, 0.1)
    config.task.mask = ("poisson_disc", "random_lines", "equispaced_lines")

    config.loss.terms = ("mae", "texture")
    config.loss.scales = (20.0, 20.0)  # alpha: about 1/s of the two, up to a factor
    config.lam.sampling = "endpoints"
    config.lam.endpoint_probability = 0.5

    config.model.network = "unrolled"
    config.model.iterations = 6
    config.model.width = 16
    config.model.hyper_width = 32
    config.model.rank = 4

    config.train.init_from = "runs/heads" if is_large else ""
    config.train.steps = 4000 if is_large else 8000
    config.train.batch = 2 if is_large else 4
    config.train.learning_rate = 1e-3 if is_large else 2e-3
    config.train.warmup = 50 if is_large else 150
    config.train.schedule = "cosine"
    config.train.clip = 20.0
    config.train.log_every = 50
    config.train.save_every = 250 if is_large else 500
    config.train.validation_images = 16 if is_large else 32
    return config
