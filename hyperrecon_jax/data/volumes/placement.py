"""Where the slices of a file lie: from what its header says to an affine, and to the order of its slices.

An affine `(4, 4)` takes (row, column, slice, 1) to millimetres to the right, front and top. `geometry` shows the slices.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hyperrecon_jax.data.volumes import geometry
from hyperrecon_jax.data.volumes.stack import Stack

UNPLACED = "the file does not say how it lies, so its axes were taken to run to the left, front and top"  # a note
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's mm run to the left and back
_UNIT_TOLERANCE = 1e-2  # of the lengths and the angle of the directions in a DICOM file, which are rounded
_SAME_DIRECTION = 1e-3  # parallel slices differ by less


class Layout(NamedTuple):
    """The order of the slices of a stack and where they lie; `affine` and `space` are as in `Volume`."""

    order: np.ndarray  # (n,) indices of the slices to take
    affine: np.ndarray | None
    space: int
    notes: list[str]


def nifti_affine(header: Any) -> tuple[np.ndarray, int, list[str]]:
    """The affine of a NIfTI file, NIfTI's code for its space, and notes.

    It is that of the sform; if that is not set or cannot be inverted, that of the qform; else the sides of the voxels
    alone, with code 0: the axes are taken to run to the left, front and top. As in the NIfTI library, a quaternion that is
    too long by rounding becomes a unit quaternion, and a side of 0 becomes 1.
    """
    notes: list[str] = []
    sides = np.array([float(side) for side in header["pixdim"][1:4]])
    has_sides = np.isfinite(sides) & (sides != 0)
    sides = np.where(has_sides, np.abs(sides), 1.0)
    readers = (
        ("sform", lambda: np.asarray(header.get_sform(), np.float64)),
        ("qform", lambda: _qform(header, sides)),
    )
    for name, read in readers:
        code = int(header[f"{name}_code"])
        if not code:
            continue
        affine = read()
        if np.isfinite(affine).all() and is_invertible(affine):
            return affine, code if 1 <= code <= 5 else 2, notes  # an invalid code, but the positions are valid
        notes.append(f"its {name} cannot be inverted")
    notes.append(UNPLACED)
    affine = np.diag([-sides[0], sides[1], sides[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array([*header.get_data_shape(), 1, 1, 1][:3]) - 1) / 2
    return affine, 0, notes


def is_invertible(affine: np.ndarray) -> bool:
    """Whether an affine has three axes that are not in a plane."""
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((sides > 0).all() and np.linalg.matrix_rank(affine[:3, :3] / sides, tol=1e-4) == 3)


def picture_affine(info: Mapping[Any, Any], orientation: int) -> np.ndarray | None:
    """The affine of a picture whose pixels are not square; None for square ones, because dots per inch are no millimetres.

    Args:
        info: of Pillow. Dots per inch, or else in any unit, along rows and columns of the stored picture.
        orientation: the tag of EXIF.
    """
    density = info.get("dpi") or info.get("aspect") or (info.get("jfif_density") if info.get("jfif_unit") == 0 else None)
    x, y = map(float, density or (1, 1))
    if not (0 < x < math.inf and 0 < y < math.inf) or geometry.is_square(x, y):
        return None
    height, width = (y, x) if orientation in (5, 6, 7, 8) else (x, y)
    shorter = min(height, width)
    return _lengths((height / shorter, width / shorter), 1.0)


def lay_out(
    directions: Sequence[Any], positions: Sequence[Any], spacing: tuple[float, float] | None, gap: float
) -> list[Layout]:
    """Order and place the slices of one or more volumes by what DICOM says, in mm to the patient's LEFT, back and top.

    There are several volumes if each place holds several slices, such as times or echoes; see `split_volumes`.

    Args:
        directions: for each slice, six numbers: the unit vectors along a row of the picture and along a column of it
            (ImageOrientationPatient); None if it is missing.
        positions: for each slice, the three coordinates of its first pixel (ImagePositionPatient); None if it is missing.
        spacing: mm from row to row and from column to column; None if it is not known.
        gap: mm from slice to slice, for a single slice.
    """
    n = len(directions)
    lengths = None if spacing is None else _lengths(spacing, gap)
    across, down = _unit_directions(directions)
    points = _to_array(positions, 3)
    if across is None or down is None or points is None:
        return [Layout(np.arange(n), lengths, 0, ["the file does not say where its slices lie"])]
    normal = np.cross(across[0], down[0])
    if np.abs(np.cross(across, down) - normal).max() > _SAME_DIRECTION or (
        np.abs(across - across[0]).max() > 10 * _SAME_DIRECTION
    ):
        return [Layout(np.arange(n), lengths, 0, ["its slices lie in different directions"])]
    volumes = split_volumes(points @ normal)
    if len(volumes) == n > 1:
        return [Layout(np.arange(n), lengths, 0, ["its slices lie at one place"])]
    layouts = []
    for order in volumes:
        step = _even_step(points[order], normal * gap)
        if step is None:
            layouts.append(Layout(order, lengths, 0, ["its slices lie at uneven steps"]))
            continue
        notes = [] if spacing else ["the file does not say how large its pixels are"]
        height, width = spacing or (1.0, 1.0)
        affine = np.eye(4)
        affine[:3] = np.stack([down[0] * height, across[0] * width, step, points[order[0]]], axis=1)
        # Without the size of pixels only the first has a place.
        layouts.append(Layout(order, FLIP @ affine, 1 if spacing else 0, notes))
    return layouts


def split_volumes(depths: np.ndarray) -> list[np.ndarray]:
    """Indices of slices as volumes, each in the order of depth.

    Depths `(n,)` are mm along the normal, and count as equal to a micrometre. If k slices lie at every place, such as k
    echoes or times, there are k volumes: the first slice of each place, the second, and so on. Else it is one volume.
    """
    order = np.argsort(depths.round(3), kind="stable")
    _, counts = np.unique(depths.round(3), return_counts=True)
    if counts.min() != counts.max():
        return [order]
    return list(order.reshape(-1, counts[0]).T)


def lay_out_stacks(stacks: Sequence[Stack]) -> list[Layout]:
    """`lay_out` for parallel single slices, each of which has an affine."""
    affines = np.stack([FLIP @ stack.affine for stack in stacks])  # type: ignore[operator]
    sides = np.linalg.norm(affines[:, :3, :3], axis=1)
    down, across = (affines[:, :3, axis] / sides[:, axis, None] for axis in (0, 1))
    spacing = (float(sides[0, 0]), float(sides[0, 1]))
    return lay_out(list(np.concatenate([across, down], 1)), list(affines[:, :3, 3]), spacing, float(sides[0, 2]))


def are_parallel(first: Stack, second: Stack) -> bool:
    """Whether two stacks have affines of the same directions and pixels, and slices of the same shape."""
    if first.affine is None or second.affine is None or first.raw.shape[1:] != second.raw.shape[1:]:
        return False
    sides = np.linalg.norm([first.affine[:3, :2], second.affine[:3, :2]], axis=1)
    steps = first.affine[:3, :2] / sides[0], second.affine[:3, :2] / sides[1]
    return bool(np.allclose(sides[0], sides[1], rtol=0.01) and np.abs(steps[0] - steps[1]).max() < 10 * _SAME_DIRECTION)


def join_stacks(stacks: Sequence[Stack], layout: Layout) -> Stack:
    """One stack of single slices that `lay_out_stacks` has placed.

    Each keeps its slope, intercept and padding; a note of one is a note of all. All other fields must be the same.
    """
    members = [stacks[k] for k in layout.order]
    shape = (len(members), 1, 1)
    has_padding = any(stack.padding is not None for stack in members)
    paddings = np.array([stack.padding or (np.nan, np.nan) for stack in members], float)  # nothing is equal to NaN
    return members[0]._replace(
        raw=np.concatenate([stack.raw for stack in members]),
        slope=np.array([float(np.squeeze(stack.slope)) for stack in members]).reshape(shape),
        intercept=np.array([float(np.squeeze(stack.intercept)) for stack in members]).reshape(shape),
        affine=layout.affine,
        space=layout.space,
        notes=list(dict.fromkeys([*(note for stack in members for note in stack.notes), *layout.notes])),
        padding=(paddings[:, 0].reshape(shape), paddings[:, 1].reshape(shape)) if has_padding else None,
    )


def _qform(header: Any, sides: np.ndarray) -> np.ndarray:
    from nibabel.quaternions import quat2mat

    vector = np.array([float(header[f"quatern_{name}"]) for name in "bcd"])
    length = np.linalg.norm(vector)
    vector = vector / max(length, 1.0)
    rotation = quat2mat([math.sqrt(max(0.0, 1 - vector @ vector)), *vector])
    affine = np.eye(4)
    affine[:3, :3] = rotation * sides * [1, 1, -1 if header["pixdim"][0] < 0 else 1]
    affine[:3, 3] = [float(header[f"qoffset_{name}"]) for name in "xyz"]
    return affine


def _even_step(points: np.ndarray, single: np.ndarray) -> np.ndarray | None:
    """The step from slice to slice; `single` for one slice; None if the steps differ by more than rounding."""
    if len(points) == 1:
        return single
    step: np.ndarray = (points[-1] - points[0]) / (len(points) - 1)
    offsets = points - points[0] - np.arange(len(points))[:, None] * step
    return step if np.abs(offsets).max() <= 1e-2 + 0.02 * np.linalg.norm(step) else None


def _lengths(spacing: tuple[float, float], gap: float) -> np.ndarray:
    """The affine of slices of which only lengths are known: rows to the back, columns to the left."""
    return np.diag([-spacing[0], -spacing[1], gap, 1.0])[[1, 0, 2, 3]]


def _to_array(values: Sequence[Any], length: int) -> np.ndarray | None:
    """Vectors `(n, length)`; None if one is missing or is no vector of finite numbers."""
    if any(value is None or isinstance(value, str) or np.size(value) != length for value in values):
        return None
    try:
        array = np.array([[float(number) for number in value] for value in values])
    except (TypeError, ValueError):
        return None
    return array if np.isfinite(array).all() else None


def _unit_directions(directions: Sequence[Any]) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """The directions along rows and columns, `(n, 3)` each, made exactly orthonormal; None if they are far from that."""
    array = _to_array(directions, 6)
    if array is None:
        return None, None
    across, down = array[:, :3], array[:, 3:]
    products = [(across * across).sum(1) - 1, (down * down).sum(1) - 1, (across * down).sum(1)]
    if max(np.abs(product).max() for product in products) > _UNIT_TOLERANCE:
        return None, None
    across = across / np.linalg.norm(across, axis=1, keepdims=True)
    down = down - (across * down).sum(1, keepdims=True) * across
    return across, down / np.linalg.norm(down, axis=1, keepdims=True)
