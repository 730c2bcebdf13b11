"""HyperRecon, supervised, 8-fold CS-MRI (Sec. V-G, Figs. 3, 5, 6): MAE against SSIM on 256 x 256 slices.

    python -m bin.train --config configs/paper_csmri_supervised_8x.py            # HyperRecon-L; :M and :S are smaller
    python -m bin.train --config configs/paper_csmri_supervised_8x.py:L-authors  # the authors' mask

Exactly an eighth of k-space is sampled; with `-authors` 1/7.305 of it, which is what the authors' own "8-fold" mask
samples, with its density. The loss scales are 1/s of the authors' code for brains (Sec. IV-D).
A job for an accelerator: docs/guides/train.md has the time of a step on two CPU cores.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import paper_config, select_variant


def get_config(variant: str = "L") -> ConfigDict:
    size, _, mask = variant.partition("-")
    config = paper_config(size)
    config.task.mask, config.task.acceleration = select_variant(
        mask, {"": ("poisson_disc", 8.0), "authors": ("poisson_disc_authors", 7.305)}
    )
    config.loss.scales = (1 / 0.0128, 1 / 0.0490)
    return config
