"""HyperRecon-L against U-Nets at five lambdas on the same data with equal steps, at a size for a laptop (Sec. V-D.1).

    python -m bin.study --plan configs/plans/baselines.py   # the study plan that trains both

`csmri` is 8-fold under-sampling, `denoising` and `superres` are the paper's other tasks; slices are 64 x 64, the U-Net is
8 wide. On two CPU cores HyperRecon takes 5 minutes, the five U-Nets 16; docs/baselines.md has the results.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import default_config, select_variant


def get_config(variant: str = "csmri") -> ConfigDict:
    config = default_config()
    config.data.size = 64
    config.data.subjects = (48, 4, 8)
    config.data.slices = 12

    config.task.name = select_variant(variant, {"csmri": "csmri", "denoising": "denoising", "superres": "super_resolution"})
    config.task.acceleration = 8.0
    config.task.sigma = 0.1 if variant == "denoising" else 0.0
    config.loss.scales = (30.0, 5.0)  # about one over what each loss comes to alone

    config.model.width = 8
    config.model.conditioning = "dense"  # the paper's
    config.model.residual = False  # a black background is easier to make than to cancel
    config.model.normalize = False  # as when its figures were measured

    config.train.steps = 6000
    config.train.batch = 8
    config.train.learning_rate = 2e-3
    config.train.schedule = "cosine"
    config.train.warmup = 100
    config.train.log_every = 100
    return config
