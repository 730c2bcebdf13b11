"""HyperRecon, supervised, denoising of white Gaussian noise with sigma = 0.1 (Sec. V-F.2, Fig. 5): MAE against SSIM.

    python -m bin.train --config configs/paper_denoise.py   # HyperRecon-L; :M and :S are the smaller ones

The loss scales are 1/s of the authors' code for denoised knees (Sec. IV-D).
A job for an accelerator: docs/guides/train.md has the time of a step on two CPU cores.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import paper_config


def get_config(variant: str = "L") -> ConfigDict:
    config = paper_config(variant)
    config.task.name = "denoising"
    config.task.sigma = 0.1
    config.loss.scales = (1 / 0.0314, 1 / 0.2741)
    return config
