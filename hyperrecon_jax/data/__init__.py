"""Where images come from. Every source is a function that returns a `Dataset`: three splits that share no subject.

`mni` makes a population of synthetic brains, `files_folder` slices of fastMRI, of ABIDE or of a folder; both once, and keep
them in a cache, from where `read` has them. `arrays` reads your own `.npy` files.
"""

from hyperrecon_jax.data.array_files import arrays
from hyperrecon_jax.data.dataset import (
    Dataset,
    Samples,
    Split,
    evenly_spaced,
    images,
    in_memory,
    loaded,
    need_labels,
    on_disk,
    subset,
    without_labels,
)
from hyperrecon_jax.data.from_files import files_folder
from hyperrecon_jax.data.prepared import metadata, mni, mni_folder, read
from hyperrecon_jax.data.sources.subject import Settings

__all__ = [
    "Dataset",
    "Samples",
    "Settings",
    "Split",
    "arrays",
    "evenly_spaced",
    "files_folder",
    "images",
    "in_memory",
    "loaded",
    "metadata",
    "mni",
    "mni_folder",
    "need_labels",
    "on_disk",
    "read",
    "subset",
    "without_labels",
]
