"""The paper's U-Net on a laptop: noisy 5-fold CS-MRI of 96 x 96 synthetic brains, MAE against SSIM, in about four minutes.

    python -m bin.train --config configs/quickstart_unet.py

On unseen synthetic subjects it gains 4 dB over its input at every lambda. On scans of people it is worse than its input:
it has no data consistency, and it learned one anatomy in one contrast. docs/quickstart.md has its figures.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.size = 96
    config.data.subjects = (48, 4, 8)
    config.data.slices = 12
    config.data.seed = 2  # the settings below were chosen on the subjects of seeds 0 and 1

    config.task.acceleration = 5.0
    config.task.sigma = 0.2  # lambda shows where the measurement leaves room for choice

    config.loss.terms = ("mae", "ssim_zero_padded")  # padded, so that SSIM alone holds the corners, too
    config.loss.scales = (20.0, 5.0)  # alpha: about 1/s of the two, up to a factor
    config.lam.sampling = "endpoints"
    config.lam.endpoint_probability = 0.3

    config.model.width = 16
    config.model.hyper_width = 32
    config.model.residual = False  # the input is noisy; do not hand it through
    config.model.normalize = False

    config.train.steps = 3000
    config.train.batch = 4  # many small steps beat few large ones in the same time
    config.train.learning_rate = 2e-3
    config.train.warmup = 150
    config.train.schedule = "cosine"
    config.train.clip = 20.0
    config.train.log_every = 50
    config.train.save_every = 600
    return config
