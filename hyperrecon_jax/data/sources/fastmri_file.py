"""Open a fastMRI file (HDF5) and read its magnitude images, or its k-space slice by slice."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyperrecon_jax.data.sources.image_files import check_regular
from hyperrecon_jax.data.volumes import hdf5
from hyperrecon_jax.data.volumes.scan import Scan, require_truth, to_images
from hyperrecon_jax.data.volumes.stack import Stack, brief
from hyperrecon_jax.runtime.errors import InputError


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[Any]:
    """The open HDF5 file. Any error inside becomes an `InputError`, because damaged files raise many kinds of errors."""
    import h5py

    check_regular(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{path} must be a whole HDF5 file, but it cannot be read: {brief(error)}") from error


def text_attribute(attribute: Any) -> str:
    """An attribute of a file as text; "" if it is missing."""
    return attribute.decode(errors="replace") if isinstance(attribute, bytes) else str(attribute or "")


def read_images(path: Path) -> Stack:
    """The file's images, and the affine of their pixels, as in `image_files.to_grid`.

    Raises:
        InputError: if the file has no images, or is under-sampled, so that its images are no truth.
    """
    with open_file(path) as file:
        key = hdf5.find_reconstruction(file)
        if key is None:
            scan = _read_scan(path, file)
            require_truth(str(path), scan.no_truth)
            return to_images(str(path), scan)
        require_truth(str(path), hdf5.explain_images_no_truth(str(path), file))
        return hdf5.read_reconstruction(str(path), file, key)


@contextlib.contextmanager
def open_scan(path: Path) -> Iterator[Scan]:
    """The k-space of a file.

    Raises:
        InputError: if the file has none.
    """
    with open_file(path) as file:
        yield _read_scan(path, file)


def _read_scan(path: Path, file: Any) -> Scan:
    if not hdf5.has_kspace(file):
        raise InputError(f"{path} must have `kspace`, got a file with {', '.join(sorted(file)[:8]) or 'nothing'}.")
    return hdf5.read_scan(str(path), file)
