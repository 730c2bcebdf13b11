"""HyperRecon, supervised, 4-fold CS-MRI (Sec. V-G): MAE against SSIM on 256 x 256 slices.

    python -m bin.train --config configs/paper_csmri_supervised_4x.py            # HyperRecon-L; :M and :S are smaller
    python -m bin.train --config configs/paper_csmri_supervised_4x.py:L-authors  # the authors' mask

Exactly a quarter of k-space is sampled; with `-authors` 1/3.210 of it, which is what the authors' own "4-fold" mask
samples, with its density. The paper gives no loss scales for 4-fold; these are the authors' code's for 8-fold brains.
A job for an accelerator: docs/guides/train.md has the time of a step on two CPU cores.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import paper_config, select_variant


def get_config(variant: str = "L") -> ConfigDict:
    size, _, mask = variant.partition("-")
    config = paper_config(size)
    config.task.mask, config.task.acceleration = select_variant(
        mask, {"": ("poisson_disc", 4.0), "authors": ("poisson_disc_authors", 3.21)}
    )
    config.loss.scales = (1 / 0.0128, 1 / 0.0490)
    return config
