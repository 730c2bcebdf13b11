"""The segmentation network of the downstream study at the paper's size (Sec. V-E.1): labels of 256 x 256 clean images.

    python -m bin.train --config configs/paper_segment.py

The U-Net with five output channels, soft-Dice loss; batch, optimizer and subjects are those of the reconstruction networks.
A job for an accelerator.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.task.name = "segmentation"
    config.loss.terms = ("soft_dice",)
    config.loss.scales = (1.0,)
    config.lam.sampling = "constant"  # one term: there is no lambda
    config.model.hyper_width = 0
    config.model.norm = "batch"
    config.model.residual = False
    return config
