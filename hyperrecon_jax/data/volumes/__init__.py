"""Read an image file as a stack of slices for a network, and write results back, for the explorer.

    volume = read("brain.nii.gz", content)
    ... a network makes `image` of `volume.slices[12]` ...
    content = nifti(volume, 12, image, {"lambda": 0.3})     # overlays brain.nii.gz, in its units

Files come as bytes and cannot be trusted: sizes are checked before pixels are decoded, nothing is unpickled, and a wrong
or damaged file raises `InputError`. The libraries of the formats are imported where they are used, because they are slow
to load.

    formats      which format a file has; NIfTI and MGH
    arrays       .npy and .npz
    pictures     PNG, JPEG and TIFF
    dicom        DICOM, and dicom_pixels: its numbers
    hdf5         fastMRI
    ismrmrd, matlab, bart    k-space of these formats
    scan         the k-space of a file of any format; field_of_view: how much of it is the image
    stack        the type that a reader of a format returns, and the checks that all readers share
    geometry     the plane and the directions of slices, their order, the sides of pixels
    placement    where the slices of a file lie: from what its header says to an affine
    intensity    what a stored value means, for all readers of images
    reading      from a stack to a `Volume`
    writing      a result as PNG, .npz, NIfTI or DICOM
"""

from hyperrecon_jax.data.volumes.reading import Volume, crop, from_stack, read
from hyperrecon_jax.data.volumes.writing import dicom, nifti, npz, png

__all__ = ["Volume", "crop", "dicom", "from_stack", "nifti", "npz", "png", "read"]
