"""Loss terms, metrics, and the objective: the sum of loss terms with weights that depend on lambda.

The loss functions of `losses.py` can be imported from here.
"""

from hyperrecon_jax.losses import metrics
from hyperrecon_jax.losses.losses import (
    edge_l1,
    mae,
    mse,
    soft_dice,
    ssim,
    ssim_loss,
    texture_loss,
    total_variation,
    wavelet_l1,
    weight_l1,
)
from hyperrecon_jax.physics.operators import check_images, data_consistency

__all__ = [
    "check_images",
    "data_consistency",
    "edge_l1",
    "mae",
    "metrics",
    "mse",
    "soft_dice",
    "ssim",
    "ssim_loss",
    "texture_loss",
    "total_variation",
    "wavelet_l1",
    "weight_l1",
]
