"""What a stored value means: from the numbers of a file to intensities in [0, 1]. All readers of images use these rules.

1. `read_values`: slope and intercept give the file's units; complex values become their modulus, colours their luminance.
   NaN and the padding of DICOM are background. Infinity is an error.
2. `find_scale`: one scale for a volume, or for all files of a series. The largest value becomes 1. The smallest value or 0,
   whichever is lower, becomes 0. Background takes no part in the scale, and neither do outliers.
3. Where large values are dark (MONOCHROME1, WhiteIsZero), the largest value becomes 0 and the smallest 1. The range of the
   values counts, not that of the stored bits, because most files use a part of their bits.
4. `to_intensity`: background becomes 0. Outliers become 0 or 1, and `describe_scale` says how many there are.

An outlier is so far away that the scale with it would leave the other values less than half of [0, 1]. At most one value in
1,000 is one. So a hot pixel leaves the other pixels as they would be without it, and usual images have no outliers. Half,
because the networks are trained on images whose 99.9th percentile is between 0.5 and 1 (`broad.py`).

`scale_arrays` has the rules for arrays that the user has scaled: `config.data.source = "arrays"` and `evaluate --data`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hyperrecon_jax.data.volumes.stack import Stack, to_double
from hyperrecon_jax.runtime.errors import InputError

OUTLIER_SHARE = 0.001  # of the values, at most
MIN_VALUES = 100  # fewer values have no outliers
ROUNDING = 1e-3  # floating-point arrays may leave [0, 1] by this much; the precision of float16
SILENT_ROUNDING = 1e-5  # more than this is said
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # of red, green and blue, by Rec. 601


class Scale(NamedTuple):
    """The values that become 0 and 1, in the file's units, and what takes no part in the scale."""

    black: float  # becomes 0; above `white` where large values are dark
    white: float  # becomes 1
    lowest: float  # of all values, with outliers
    highest: float
    outliers: int
    missing: int  # values that are NaN
    padding: int  # pixels of padding
    size: int  # all pixels


class _Tails(NamedTuple):
    """The smallest and largest values of a volume, and how many values of each kind it has."""

    bottom: np.ndarray  # in ascending order
    top: np.ndarray  # in descending order
    num_ranked: int  # values that are ranked: all, or where large values are bright those that are not 0
    zeros: int  # values that are 0 and not ranked
    missing: int
    padding: int


def luminance(pixels: np.ndarray) -> np.ndarray:
    """The luminance of colours: `(..., 3)` -> `(...)` float32."""
    with np.errstate(over="ignore", invalid="ignore"):  # `read_values` names what is infinite
        return (pixels @ _LUMINANCE).astype(np.float32)


def read_values(file_name: str, stack: Stack, index: int) -> np.ndarray:
    """The values of a slice in the file's units, NaN where there is background: `(h, w)` float64.

    Raises:
        InputError: if some are infinite.
    """
    slope, intercept = (np.broadcast_to(a, stack.raw.shape)[index] for a in (stack.slope, stack.intercept))
    stored, padding = to_double(stack.raw[index]), _is_padding(stack, index)
    with np.errstate(over="ignore", invalid="ignore"):
        values = stored * np.float64(slope) + np.float64(intercept)
        values = np.abs(values) if np.iscomplexobj(values) else values
    if ((np.isinf(stored) | np.isinf(values)) & ~padding).any():
        raise InputError(f"{file_name} must hold finite numbers, but slice {index} has infinity.")
    values[padding] = np.nan
    return values


def find_scale(stacks: Sequence[tuple[str, Stack]]) -> Scale:
    """The scale of a volume or of a series.

    Args:
        stacks: the name and the slices of each file. Large values are bright in all of them, or dark in all of them.

    Returns:
        The scale. Its `black` and `white` are equal if no image can be made: all values are equal, or there are none.

    Raises:
        InputError: if some values, or their range, are infinite.
    """
    file_name, inverted = stacks[0][0], stacks[0][1].inverted
    tails = _find_tails(stacks, inverted)
    lowest, highest = _ends(tails.bottom, tails.top, tails.zeros)
    low_limit, high_limit = _limits(tails, inverted)
    bottom, top = tails.bottom[tails.bottom >= low_limit], tails.top[tails.top <= high_limit]
    low, high = _ends(bottom, top, tails.zeros)
    outliers = tails.bottom.size - bottom.size + tails.top.size - top.size
    if low == high:  # there is nothing but outliers
        low, high, outliers = lowest, highest, 0
    low = low if inverted else min(low, 0.0)
    if not math.isfinite(high - low):
        raise InputError(f"{file_name} must hold values of finite range, got {lowest:g} to {highest:g}.")
    return Scale(
        black=high if inverted else low,
        white=low if inverted else high,
        lowest=lowest,
        highest=highest,
        outliers=outliers,
        missing=tails.missing,
        padding=tails.padding,
        size=sum(stack.raw.size for _, stack in stacks),
    )


def to_intensity(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Values of `read_values` in [0, 1], background as 0; the same type and shape."""
    if scale.white == scale.black:
        return np.zeros_like(values)
    shares = np.clip((values - scale.black) / (scale.white - scale.black), 0, 1)
    return np.nan_to_num(shares, nan=0.0) + 0.0  # no -0.0


def describe_stack(stack: Stack) -> list[str]:
    """What was done to a file before its scale, for the user."""
    return [*stack.notes, *(["complex values became their magnitudes"] if np.iscomplexobj(stack.raw) else [])]


def describe_scale(scale: Scale) -> list[str]:
    """What was done to the values, for the user."""
    black, white = scale.black, scale.white
    largest = "the largest value" + (" that is no outlier" if scale.outliers else "")
    if black > white:
        notes = [f"inverted, as large values are dark: {black:g}, {largest}, became 0 and {white:g} became 1"]
    elif black < 0:
        notes = [f"shifted and scaled so that {black:g} became 0 and {white:g}, {largest}, 1"]
    else:
        notes = [f"scaled by {f'{white:g}, {largest}' if scale.outliers else f'its maximum {white:g}'}"]
    if scale.outliers:
        ends = [(f"down to {scale.lowest:g}", scale.lowest < min(black, white))]
        ends += [(f"up to {scale.highest:g}", scale.highest > max(black, white))]
        extent = " and ".join(text for text, is_outside in ends if is_outside)
        notes.append(f"{_count(scale.outliers, 'outlying value', 'outlying values')}, {extent}, became 0 or 1")
    for number, singular, plural in (
        (scale.missing, "value that is NaN", "values that are NaN"),
        (scale.padding, "pixel of padding", "pixels of padding"),
    ):
        if number:
            notes.append(f"{_count(number, singular, plural)} ({number / scale.size:.2%}) became 0")
    return notes


def is_ordinary(scale: Scale) -> bool:
    """Whether nothing was done but a scaling by the largest value."""
    return 0 <= scale.black <= scale.white and not (scale.outliers or scale.missing or scale.padding)


def scale_arrays(arrays: Sequence[tuple[str, np.ndarray]]) -> tuple[list[np.ndarray], list[str]]:
    """Arrays that are used together, such as the splits of a data set, as intensities.

    Floating-point values stay as they are; those that leave [0, 1] by rounding are clipped, and NaN becomes 0. Booleans are
    0 and 1. uint8 and uint16 are divided by 255 and 65535 if their values reach into the upper half of that range. All
    other integers have one scale for all arrays of their type, in either order of bytes, by `find_scale`.

    Args:
        arrays: for each its name for messages, and its images `(n, h, w)`.

    Returns:
        The arrays as float32, and what the user should know about what was done.

    Raises:
        InputError: if a type is no real number, if values are infinite, or if floating-point values leave [0, 1].
    """
    notes: list[str] = []
    scales: dict[str, Scale | None] = {}  # of each type of integers
    results = []
    for name, images in arrays:
        unit = images.dtype.name
        if images.dtype.kind in "iu" and unit not in scales:
            group = [(label, Stack(other, [])) for label, other in arrays if other.dtype.name == unit]
            scales[unit], group_notes = _integer_scale(group)
            notes += group_notes
        if images.dtype.kind == "b":
            results.append(images.astype(np.float32))
        elif images.dtype.kind == "f":
            results.append(_clip_rounding(name, images, notes))
        elif images.dtype.kind in "iu":
            scale = scales[unit]
            if scale is None:
                results.append(np.divide(images, np.iinfo(images.dtype).max, dtype=np.float32))
            else:
                scaled = np.empty(images.shape, np.float32)
                for k, image in enumerate(images):  # one by one, as double precision takes memory
                    scaled[k] = to_intensity(image.astype(np.float64), scale)
                results.append(scaled)
        else:
            raise InputError(f"{name} must hold real numbers, got {images.dtype}; convert them first.")
    return results, notes


def _integer_scale(group: list[tuple[str, Stack]]) -> tuple[Scale | None, list[str]]:
    """The scale of integers of one type, and notes about it; None for that of the type itself."""
    name, dtype = group[0][0], group[0][1].raw.dtype
    scale = find_scale(group)
    is_picture = dtype.kind == "u" and dtype.itemsize <= 2  # whose largest number is white
    if scale.black == scale.white or (is_picture and scale.white > np.iinfo(dtype).max / 2):
        return None, []
    names = name if len(group) == 1 else f"{name} and {len(group) - 1} more"
    return scale, [
        f"{names} of {dtype.name}: {'; '.join(describe_scale(scale))}; for another scale, save float32 in [0, 1]."
    ]


def _clip_rounding(name: str, images: np.ndarray, notes: list[str]) -> np.ndarray:
    """Floating-point images as float32 in [0, 1]; appends to `notes`."""
    is_infinite = np.isinf(images).any(axis=(1, 2))
    if is_infinite.any():
        raise InputError(f"{name} must hold finite numbers, but image {int(np.argmax(is_infinite))} has infinity.")
    is_missing = np.isnan(images)
    missing = int(is_missing.sum())
    if missing == images.size:
        raise InputError(f"{name} must hold images, but all of its values are NaN.")
    low, high = np.nanmin(images), np.nanmax(images)
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise InputError(
            f"{name} must hold values in [0, 1], got {_digits(low)} to {_digits(high)}; scale all splits alike, for example"
            " (x - low) / (high - low) with the low and high of the training images, and clip."
        )
    if low < -SILENT_ROUNDING or high > 1 + SILENT_ROUNDING:
        notes.append(f"{name}: its values, {_digits(low)} to {_digits(high)}, were clipped to [0, 1].")
    if missing:
        values = _count(missing, "value that is NaN", "values that are NaN")
        notes.append(f"{name}: {values} ({missing / images.size:.2%}) became 0.")
        images = np.where(is_missing, 0, images)
    images = images.astype(np.float32, copy=False)
    return np.clip(images, 0, 1) if low < 0 or high > 1 else images


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number:,} {singular if number == 1 else plural}"


def _digits(value: np.floating) -> str:
    """As many digits as tell a number from its neighbours."""
    return str(value).removesuffix(".0")


def _is_padding(stack: Stack, index: int) -> np.ndarray:
    """Which pixels of a slice are padding, `(h, w)` bool."""
    raw = stack.raw[index]
    if stack.padding is None:
        return np.zeros(raw.shape, bool)
    low, high = (np.broadcast_to(end, stack.raw.shape)[index] for end in stack.padding)
    return (raw >= low) & (raw <= high)


def _find_tails(stacks: Sequence[tuple[str, Stack]], inverted: bool) -> _Tails:
    """The values that may be outliers, and one more at each end. Reads slice by slice, as a volume may be large."""
    size = sum(stack.raw.size for _, stack in stacks)
    length = math.ceil(size * OUTLIER_SHARE) + 1
    bottom = top = np.empty(0)
    pending: list[np.ndarray] = []
    num_ranked = num_present = num_pending = padding = 0
    for name, stack in stacks:
        for k in range(len(stack.raw)):
            values = read_values(name, stack, k)
            present = values[~np.isnan(values)]
            pending.append(present if inverted else present[present != 0])
            num_ranked, num_present = num_ranked + pending[-1].size, num_present + present.size
            num_pending += pending[-1].size
            padding += int(_is_padding(stack, k).sum())
            if num_pending > length:  # many slices at once, or each would cost as much as all tails
                bottom, top = _smallest([bottom, *pending], length), -_smallest([-top, *(-a for a in pending)], length)
                pending, num_pending = [], 0
    bottom, top = _smallest([bottom, *pending], length), -_smallest([-top, *(-a for a in pending)], length)
    return _Tails(
        np.sort(bottom), -np.sort(-top), num_ranked, num_present - num_ranked, size - num_present - padding, padding
    )


def _smallest(arrays: list[np.ndarray], length: int) -> np.ndarray:
    """The `length` smallest values, in any order; all if there are fewer."""
    values = np.concatenate(arrays)
    return values if values.size <= length else np.partition(values, length - 1)[:length]


def _limits(tails: _Tails, inverted: bool) -> tuple[float, float]:
    """The values below and above which there are outliers."""
    if tails.num_ranked < MIN_VALUES:
        return -math.inf, math.inf
    k = math.ceil(tails.num_ranked * OUTLIER_SHARE)
    low, high = float(tails.bottom[k]), float(tails.top[k])
    if not inverted:  # 0 is the background, so it is never an outlier
        low, high = min(low, 0.0), max(high, 0.0)
    return (low - (high - low), high + (high - low)) if high > low else (-math.inf, math.inf)


def _ends(bottom: np.ndarray, top: np.ndarray, zeros: int) -> tuple[float, float]:
    """The lowest and the highest value; 0 and 0 if there are none."""
    base = [0.0] if zeros or not bottom.size else []
    return float(min([*bottom[:1], *base])), float(max([*top[:1], *base]))
