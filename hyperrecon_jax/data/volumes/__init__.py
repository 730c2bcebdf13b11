"""One image file that somebody has, read as a stack of slices for a network, and what came of it written back.

    volume = read("brain.nii.gz", content)
    ... a network makes `image` of `volume.slices[12]` ...
    content = nifti(volume, 12, image, {"lambda": 0.3})     # lies over brain.nii.gz, in its units

Files come as bytes, and from anyone: sizes are checked before pixels are decoded, nothing is unpickled, and a file that
is not what it should be raises `InputError`. The libraries of the formats are imported where they are used: they take
longer to load than all the rest here.
"""

from hyperrecon_jax.data.volumes.reading import Volume, crop, read
from hyperrecon_jax.data.volumes.writing import nifti, npz, png

__all__ = ["Volume", "crop", "nifti", "npz", "png", "read"]
