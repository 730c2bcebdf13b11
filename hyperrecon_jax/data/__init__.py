"""Where images come from. Every source is a function that returns a `Dataset`: three splits that share no subject.

`mni` makes a population of synthetic brains, once, and caches it; `arrays` reads your own `.npy` files.
"""

from hyperrecon_jax.data.array_files import arrays
from hyperrecon_jax.data.dataset import Dataset, Split, spread, with_labels
from hyperrecon_jax.data.prepared import cache_folder, mni

__all__ = ["Dataset", "Split", "arrays", "cache_folder", "mni", "spread", "with_labels"]
