"""HyperRecon-L and five U-Nets on the same data with equal steps, at a size for a laptop (Sec. V-D.1, Figs. 3 and 5).

    python -m bin.train --config configs/laptop_sl.py:csmri            # HyperRecon-L, for every lambda
    python -m bin.train --config configs/laptop_sl.py:csmri-unets      # a U-Net for each of five lambdas
    python -m bin.evaluate --compare runs/laptop_sl-csmri runs/laptop_sl-csmri-unets

`csmri` is 8-fold under-sampling, `denoising` and `superres` are the paper's other tasks; slices are 64 x 64, the U-Net is
16 wide. On two CPU cores the first takes about 20 minutes, the second several times as long.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import choose, default_config


def get_config(variant: str = "csmri") -> ConfigDict:
    task, _, networks = variant.partition("-")
    config = default_config()
    config.data.size = 64
    config.data.subjects = (48, 4, 8)
    config.data.slices = 12

    config.task.name = choose(task, {"csmri": "csmri", "denoising": "denoising", "superres": "super_resolution"})
    config.task.acceleration = 8.0
    config.task.sigma = 0.1 if task == "denoising" else 0.0
    config.loss.scales = (30.0, 5.0)  # about one over what each loss comes to alone

    config.model.width = 16
    if choose(networks or "hyper", {"hyper": False, "unets": True}):
        config.model.hyper_width = 0
        config.lam.sampling = "ensemble"
        config.lam.axes = ((0.0, 0.25, 0.5, 0.75, 1.0),)

    config.train.steps = 10_000
    config.train.batch = 8
    config.train.schedule = "cosine"
    config.train.warmup = 100
    config.train.log_every = 100
    return config
