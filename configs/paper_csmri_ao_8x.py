"""HyperRecon without ground truth, 8-fold CS-MRI (Sec. V-D.2, V-H; Figs. 4, 7): J, weight-L1 and TV on 256 x 256 slices.

    python -m bin.train --config configs/paper_csmri_ao_8x.py        # HyperRecon-L with DHS; :M and :S are the smaller ones
    python -m bin.train --config configs/paper_csmri_ao_8x.py:L-uhs  # the same with uniform sampling (UHS)

DHS keeps 8 of 32 samples (the paper does not say how many; this is one of the authors' settings). The paper tuned the loss
scales by hand and does not give them; here a pilot finds them. With batch norm, as in the paper, DHS masks a full backward
pass; --config.model.norm=instance makes it pull back the 8 alone.
A job for an accelerator; ao_quickstart.py is for a laptop.
"""

from ml_collections import ConfigDict

from hyperrecon_jax.config import paper_config, select_variant


def get_config(variant: str = "L") -> ConfigDict:
    size, _, sampling = variant.partition("-")
    config = paper_config(size)
    config.dhs.keep = select_variant(sampling or "dhs", {"dhs": 8, "uhs": None})
    config.task.acceleration = 8.0
    config.loss.terms = ("data_consistency", "weight_l1", "total_variation")
    config.loss.scales = ("auto",)
    config.loss.ground_truth = False
    return config
