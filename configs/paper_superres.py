"""HyperRecon, supervised, super-resolution by 4 (Sec. V-F.3, Fig. 5): MAE against SSIM on 256 x 256 slices.

    python -m bin.train --config configs/paper_superres.py   # HyperRecon-L; :M and :S are the smaller ones

Down by means of 4 x 4 blocks, back up by nearest neighbour. The loss scales are 1/s of the authors' code for knees
(Sec. IV-D).
A job for an accelerator: docs/guides/train.md has the time of a step on two CPU cores.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import paper_config


def get_config(variant: str = "L") -> ConfigDict:
    config = paper_config(variant)
    config.task.name = "super_resolution"
    config.loss.scales = (1 / 0.0374, 1 / 0.3852)
    return config
