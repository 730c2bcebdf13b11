"""The baseline of HyperRecon in supervised learning: a plain U-Net at each of five lambdas (Sec. V-C; Figs. 3, 5).

    python -m bin.train --config configs/paper_baselines_sl.py               # 4-fold CS-MRI
    python -m bin.train --config configs/paper_baselines_sl.py:denoise       # against configs/paper_denoise.py

The variants are the names of the configs of HyperRecon, without `paper_`. All five are trained in one step, on the same
images in the same order. A job for an accelerator; laptop_sl.py is for a laptop.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import paper_config, select_variant

# task, acceleration, sigma, loss scales: as in the config of the HyperRecon that each is compared with
TASKS = {
    "csmri_supervised_4x": ("csmri", 4.0, 0.0, (1 / 0.0128, 1 / 0.0490)),
    "csmri_supervised_8x": ("csmri", 8.0, 0.0, (1 / 0.0128, 1 / 0.0490)),
    "denoise": ("denoising", 4.0, 0.1, (1 / 0.0314, 1 / 0.2741)),
    "superres": ("super_resolution", 4.0, 0.0, (1 / 0.0374, 1 / 0.3852)),
}


def get_config(variant: str = "csmri_supervised_4x") -> ConfigDict:
    config = paper_config("L")
    config.task.name, config.task.acceleration, config.task.sigma, config.loss.scales = select_variant(variant, TASKS)
    config.model.hyper_width = 0
    config.lam.sampling = "ensemble"
    config.lam.axes = ((0.0, 0.25, 0.5, 0.75, 1.0),)
    return config
