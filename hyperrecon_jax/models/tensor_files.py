"""Read and write named arrays: NumPy's `.npz`, `.safetensors`, and PyTorch's `.pt`, `.pth`, `.pth.tar`.

The packages `safetensors` and `torch` are needed only for their own formats.
"""

import io
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.files import atomic_write

SUFFIXES = (".npz", ".safetensors", ".pt", ".pth", ".tar")


def read(path: str | PathLike[str]) -> Mapping[str, Any]:
    """The named arrays of a file; of a PyTorch file the tensors and plain values (nothing else is unpickled).

    Raises:
        InputError: if the file does not exist, has another suffix, is damaged, holds other objects, or its package is
        missing.
    """
    path = Path(path).expanduser()
    _check(path)
    if not path.is_file():
        raise InputError(f"{path} must be a file of tensors; there is none.")
    try:
        arrays = _read(path)
    except ImportError as error:
        raise _missing(path, error) from None
    except MemoryError:
        raise
    except Exception as error:  # every library raises another error for a damaged file
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(f"{path} must hold tensors alone; it cannot be read: {reason}.") from error
    if not isinstance(arrays, Mapping):
        raise InputError(f"{path} must hold tensors by name, got {type(arrays).__name__}.")
    return arrays


def write(path: str | PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays to a file in the format of its suffix. An interruption leaves no partial file.

    Raises:
        InputError: for an unknown suffix, or if the package for it is missing.
    """
    path = Path(path)
    _check(path)
    stream = io.BytesIO()
    try:
        if path.suffix == ".npz":
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        elif path.suffix == ".safetensors":
            from safetensors.numpy import save

            stream.write(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
        else:
            import torch

            torch.save({name: torch.tensor(array) for name, array in arrays.items()}, stream)
    except ImportError as error:
        raise _missing(path, error) from None
    with atomic_write(path) as partial:
        partial.write_bytes(stream.getvalue())


def flatten_tree(tree: Any) -> dict[str, Any]:
    """A nested dict of arrays as `{"params/main/conv/kernel": array}`."""
    return flatten_dict(tree, sep="/")


def unflatten_tree(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict of `flatten_tree`."""
    return unflatten_dict(dict(arrays), sep="/")


def _read(path):
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(path)
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _check(path):
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path} must end with one of {', '.join(SUFFIXES)}.")


def _missing(path, error):
    return InputError(f"{path} takes the package {error.name}, which is not installed; a .npz needs none.")
