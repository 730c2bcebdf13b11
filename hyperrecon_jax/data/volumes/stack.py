"""The type that a reader of a format returns, and the checks that all readers share."""

import re
import textwrap
from typing import Any, NamedTuple

import numpy as np

from hyperrecon_jax.runtime.errors import InputError

# pixels of a volume: 512 slices of 512 x 512, 512 MiB as float32 and up to four times that while it is read
MAX_PIXELS = 2**27
MIN_SIDE, MAX_SIDE = 8, 2048  # pixels along a side of a slice in the file
MAX_COILS = 128


class NoImageError(InputError):
    """A file that holds no image that can be used here, such as a report. Among the files of a subject it is skipped.

    Args:
        message: the sentence for the user.
        reason: the same for files of this kind, in a few words, so that they can be counted.
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


class Stack(NamedTuple):
    """The slices of a file as they are stored; `intensity.py` says what their values mean. The rest is as in `Volume`."""

    raw: np.ndarray  # (n, h, w), real or complex; k-space of several coils (n, c, h, w)
    notes: list[str]
    slope: float | np.ndarray = 1.0  # a number, or an array that broadcasts to `raw`
    intercept: float | np.ndarray = 0.0
    affine: np.ndarray | None = None
    space: int = 0
    identity: tuple[tuple[str, str], ...] = ()  # keywords of DICOM and their values: whose image it is, and of which study
    inverted: bool = False  # large values are dark
    padding: tuple[Any, Any] | None = None  # lowest and highest stored value that mean that there is no pixel, as `slope`
    kind: str = "image"  # or "kspace": `raw` is centred k-space
    no_truth: str = ""  # of k-space: why it is no truth, as in `scan.Scan`
    is_metric: bool = False  # `affine` is in mm; else only the ratio of the sides of a pixel counts
    frames: int = 1  # volumes that the file holds, such as times; `raw` is one of them
    unit: str = ""  # of files that do not say what their numbers mean: their type, as files of one type are comparable


def to_double(values: np.ndarray) -> np.ndarray:
    """The values in double precision."""
    with np.errstate(over="ignore", invalid="ignore"):  # `check_finite` names what is not finite
        return values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)


def type_unit(dtype: np.dtype[Any]) -> str:
    """`Stack.unit` of a type: of integers its name, such as "uint16"; one for all other numbers."""
    return dtype.name if dtype.kind in "biu" else "floating-point"


def check_size(file_name: str, n: int, h: int, w: int, *, what: str = "slices") -> None:
    """Raises `InputError` if there are too many slices, or they are too small or too large. `file_name` is for messages."""
    if n < 1:
        raise InputError(f"{file_name} must hold at least one slice, got {n} of {h} x {w}.")
    if not (MIN_SIDE <= h <= MAX_SIDE and MIN_SIDE <= w <= MAX_SIDE):
        raise InputError(f"{file_name} must hold {what} of {MIN_SIDE} to {MAX_SIDE} pixels a side, got {n} of {h} x {w}.")
    if n * h * w > MAX_PIXELS:
        raise InputError(f"{file_name} must hold at most {MAX_PIXELS} pixels, got {n} {what} of {h} x {w}.")


def check_coils(file_name: str, n: int, c: int, h: int, w: int) -> None:
    """Raises `InputError` if k-space has too many coils or samples. Call `check_size` first."""
    if not 1 <= c <= MAX_COILS:
        raise InputError(f"{file_name} must have k-space of 1 to {MAX_COILS} coils, got {c} of {h} x {w}.")
    if n * c * h * w > MAX_PIXELS:
        raise InputError(
            f"{file_name} must hold k-space of at most {MAX_PIXELS} samples, got {n} slices of {c} coils of {h} x {w}; drop"
            " a part of its slices."
        )


def describe_frame(frame: int, frames: int) -> str:
    """A note that says which volume of a file with several was read."""
    return f"the first of {frames} volumes" if frame == 0 else f"volume {frame + 1} of {frames}"


def check_length(file_name: str, got: int, expected: int) -> None:
    """Raises `InputError` if a file is shorter than expected."""
    if got < expected:
        raise InputError(f"{file_name} must be a whole file of {expected} bytes, but it ends after {got}.")


def check_finite(file_name: str, index: int, values: np.ndarray) -> None:
    """Raises `InputError` if a slice has NaN or infinity."""
    if not np.isfinite(values).all():
        raise InputError(f"{file_name} must hold finite numbers, but slice {index} has NaN or infinity.")


def brief(error: Exception) -> str:
    """The first words of an error's message, up to 200 characters, as the end of a sentence.

    Objects of Python, such as `<_io.BytesIO object at 0x7f12>`, mean nothing to the user and are left out.
    """
    text = re.sub(r" ?<[^<>]* object at 0x\w+>", "", str(error))
    return (textwrap.shorten(text, 200, placeholder=" ...") or type(error).__name__).rstrip(".") + "."
