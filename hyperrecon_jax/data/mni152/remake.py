"""Remake `template.npy.xz` from the files that nilearn distributes.

    python -m hyperrecon_jax.data.mni152.remake NILEARN_DATASETS_DATA_DIR

The folder is `nilearn/datasets/data` of an unpacked nilearn 0.14.1. Needs nibabel (the extra `template`).
"""

import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hyperrecon_jax.data import template

BRAIN = np.s_[26:171, 27:208, 0:155]  # bounding box of T1 > 0 in the 197 x 233 x 189 original
AFFINE = np.array([[1, 0, 0, -98], [0, 1, 0, -134], [0, 0, 1, -72], [0, 0, 0, 1]])


def main(folder: str) -> None:
    import nibabel  # an extra, needed only here

    volumes = []
    for name in ("t1", "gm", "wm"):
        image: Any = nibabel.load(Path(folder) / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")
        volume = np.asarray(image.dataobj)
        if not np.array_equal(image.affine, AFFINE) or volume.dtype != np.uint8:
            raise SystemExit(f"the {name} file is not the 1 mm uint8 volume of nilearn 0.14.1")
        volumes.append(volume)
    brain = volumes[0] > 0
    cropped = np.stack([np.where(brain, v, 0)[BRAIN] for v in volumes]).astype(np.uint8)
    halves = cropped[:, cropped.shape[1] // 2 :]
    residuals = template.encode(halves)
    if not np.array_equal(np.stack(template.decode(residuals)), cropped) or brain.sum() != (cropped[0] > 0).sum():
        raise SystemExit("the atlas is not symmetric or does not fit its bounding box")
    # literal context and position bits off: residuals have no structure at byte positions, and the file is smaller
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 0, "pb": 0}]
    with lzma.open(template.FILE, "wb", format=lzma.FORMAT_XZ, filters=filters) as file:
        np.save(file, residuals)
    print(f"{template.FILE}: {template.FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
