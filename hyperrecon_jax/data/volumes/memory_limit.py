"""A limit of the memory that reading files may take: a small file can declare any number of values.

Readers call `check_memory` with what the header of a file declares, before they read its values. Without a limit, as in
`bin.prepare`, nothing is refused.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import numpy as np

from hyperrecon_jax.runtime.errors import InputError

# bytes of memory for each value while a file is read: copies of the stored values, and the result
STORED_COPIES = {True: 3, False: 2}  # of complex values, of real ones
RESULT_BYTES = {True: 0, False: 4}  # of complex values they are no more than a stored copy that is gone by then

_remaining: ContextVar[int | None] = ContextVar("remaining", default=None)


@contextlib.contextmanager
def limit_memory(num_bytes: int) -> Iterator[None]:
    """Within this context, files that would take more memory while they are read are refused."""
    token = _remaining.set(num_bytes)
    try:
        yield
    finally:
        _remaining.reset(token)


def reserve(num_bytes: int) -> None:
    """Take what stays in memory while others are read from the limit."""
    remaining = _remaining.get()
    if remaining is not None:
        _remaining.set(remaining - num_bytes)


def check_memory(file_name: str, size: int, dtype: np.dtype) -> None:
    """Raise `InputError` if so many values of a type take more memory than is left. `file_name` is for messages."""
    remaining = _remaining.get()
    if remaining is None:
        return
    is_complex = dtype.kind in "cV"  # V: complex numbers as fields
    needed = size * (STORED_COPIES[is_complex] * dtype.itemsize + RESULT_BYTES[is_complex])
    if needed > remaining:
        raise InputError(
            f"{file_name} must take at most {max(remaining, 0) // 2**20} MiB of memory while it is read, but its {size}"
            f" values of {dtype.itemsize} bytes need {-(-needed // 2**20)} MiB; save a part of its slices, or values of"
            " fewer bytes."
        )
