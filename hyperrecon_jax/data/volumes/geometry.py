"""Where the slices of a file lie: plane, directions of rows and columns, order of slices, sides of pixels.

All formats are decided here, so that one head is shown in one way, whatever its file is. An affine `(4, 4)` takes
(row, column, slice, 1) to millimetres to the right, front and top. Nothing is interpolated: axes are swapped and flipped.

- Plane: "axial", "coronal", "sagittal", or "acquired", the plane in which the scan was made. For a volume this is the plane
  of its two finest axes. Axes within 10 % count as equal, and of equal planes the first is taken whose slices have at
  least `MIN_SIDE` pixels a side. So an isotropic volume is axial. For DICOM it is the plane of the stored images.
- Directions: as radiologists look at each plane (`VIEWS`). Slices follow each other along rows x columns, as in DICOM.
- Order: by position along the normal of the slices.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hyperrecon_jax.data.volumes.stack import MIN_SIDE, NoImageError, Stack
from hyperrecon_jax.runtime.errors import InputError

# To where rows (down the picture), columns (across it) and slices run; `LETTERS` has the letters.
# The patient's right is on the left of axial and coronal slices; a sagittal slice looks to the left.
VIEWS = {"axial": "PLS", "coronal": "ILP", "sagittal": "IPR"}
ACQUIRED = "acquired"
PLANES = (*VIEWS, ACQUIRED)
UNPLACED = "the file does not say how it lies, so its axes were taken to run to the left, front and top"  # a note
LETTERS = ("LR", "PA", "IS")  # to the left, right; back (posterior), front; bottom (inferior), top

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's mm run to the left and back
_EQUAL = 1.1  # sides of a voxel that differ by less count as equal
_SKEW = math.sin(math.radians(5))  # a stack is only cut in another plane if its axes are nearer to right angles than this
_UNIT_TOLERANCE = 1e-2  # of the lengths and the angle of the directions in a DICOM file, which are rounded
_SAME_DIRECTION = 1e-3  # parallel slices differ by less


class View(NamedTuple):
    """How an array is shown: its axes in the order rows, columns, slices, and which of these are flipped."""

    plane: str
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]


class Layout(NamedTuple):
    """The order of the slices of a stack and where they lie; `affine` and `space` are as in `Volume`."""

    order: np.ndarray  # (n,) indices of the slices to take
    affine: np.ndarray | None
    space: int
    notes: list[str]


def check_plane(plane: str) -> None:
    """Raises `InputError` if `plane` is none of `PLANES`."""
    if plane not in PLANES:
        raise InputError(f"`plane` must be one of {', '.join(PLANES)}, got {plane!r}.")


def pixel_size(affine: np.ndarray | None) -> tuple[float, float]:
    """Height and width of a pixel in mm; (1, 1) if the affine is not known."""
    height, width = (1.0, 1.0) if affine is None else np.linalg.norm(affine[:3, :2], axis=0)
    return float(height), float(width)


def plane_of(affine: np.ndarray) -> str:
    """The plane of the slices of an affine: that of the anatomical axis that is nearest to the third axis."""
    return _plane_across(int(_patient_axes(affine)[2]))


def choose_view(affine: np.ndarray, shape: Sequence[int], plane: str) -> View:
    """How to show a volume.

    Args:
        affine: from the indices of the array to mm to the right, front and top.
        shape: of the array, three numbers.
        plane: one of `PLANES`.
    """
    patient_axes = _patient_axes(affine)
    if plane == ACQUIRED:
        plane = _acquired_plane(np.linalg.norm(affine[:3, :3], axis=0), shape, patient_axes)
    axes, flips = [], []
    for letter in VIEWS[plane]:
        patient_axis = next(k for k, letters in enumerate(LETTERS) if letter in letters)
        axis = int(np.flatnonzero(patient_axes == patient_axis)[0])
        axes.append(axis)
        flips.append(bool((affine[patient_axis, axis] > 0) != (letter == LETTERS[patient_axis][1])))
    rows, columns, slices = axes
    return View(plane, (rows, columns, slices), (flips[0], flips[1], flips[2]))


def arrange(array: np.ndarray, view: View) -> np.ndarray:
    """An array `(i, j, k)` with the axes and directions of a view: `(rows, columns, slices)`, without a copy."""
    return array.transpose(view.axes)[tuple(slice(None, None, -1 if flip else 1) for flip in view.flips)]


def arrange_affine(affine: np.ndarray, shape: Sequence[int], view: View) -> np.ndarray:
    """The affine of the result of `arrange` for an array of this shape."""
    turn = np.zeros((4, 4))  # from the indices of the result to those of the array
    turn[3, 3] = 1
    for k, (axis, flip) in enumerate(zip(view.axes, view.flips, strict=True)):
        turn[axis, k] = -1 if flip else 1
        turn[axis, 3] = shape[axis] - 1 if flip else 0
    return affine @ turn


def arrange_stack(file_name: str, stack: Stack, plane: str) -> Stack:
    """A stack whose slices are images as they were acquired, such as those of DICOM, in a plane.

    A stack without positions stays as it is stored. `file_name` is for messages.

    Raises:
        NoImageError: if it must be cut in another plane, but has no positions, or its slices are not at right angles to
            the direction in which they follow each other, or the plane has too few pixels.
    """
    own_plane = plane_of(stack.affine) if stack.affine is not None and stack.space else ""
    if not own_plane and plane == ACQUIRED:
        return stack
    if plane not in (ACQUIRED, own_plane):
        _check_cut(file_name, stack, plane, own_plane)
    assert stack.affine is not None
    n, h, w = stack.raw.shape
    view = choose_view(stack.affine, (h, w, n), own_plane if plane == ACQUIRED else plane)

    def turn(values: Any) -> Any:
        """Values for each pixel, or that broadcast to the pixels."""
        return values if np.ndim(values) == 0 else arrange(np.asarray(values).transpose(1, 2, 0), view).transpose(2, 0, 1)

    return stack._replace(
        raw=turn(stack.raw),
        slope=turn(stack.slope),
        intercept=turn(stack.intercept),
        affine=arrange_affine(stack.affine, (h, w, n), view),
    )


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
    """One stack of single slices that `lay_out_stacks` has placed; all other fields must be the same in all stacks."""
    members = [stacks[k] for k in layout.order]
    shape = (len(members), 1, 1)
    return members[0]._replace(
        raw=np.concatenate([stack.raw for stack in members]),
        slope=np.array([float(np.squeeze(stack.slope)) for stack in members]).reshape(shape),
        intercept=np.array([float(np.squeeze(stack.intercept)) for stack in members]).reshape(shape),
        affine=layout.affine,
        space=layout.space,
        notes=[*members[0].notes, *layout.notes],
    )


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


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A picture `(h, w, ...)` turned by the orientation tag of EXIF: 1 to 8; anything else leaves it."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    vertical, horizontal = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return pixels[:: -1 if vertical else 1, :: -1 if horizontal else 1]


def picture_affine(info: Mapping[Any, Any], orientation: int) -> np.ndarray | None:
    """The affine of a picture whose pixels are not square; None for square ones, because dots per inch are no millimetres.

    Args:
        info: of Pillow. Dots per inch, or else in any unit, along rows and columns of the stored picture.
        orientation: the tag of EXIF.
    """
    density = info.get("dpi") or info.get("aspect") or (info.get("jfif_density") if info.get("jfif_unit") == 0 else None)
    x, y = map(float, density or (1, 1))
    if not (0 < x < math.inf and 0 < y < math.inf) or max(x, y) < 1.01 * min(x, y):
        return None
    height, width = (y, x) if orientation in (5, 6, 7, 8) else (x, y)
    shorter = min(height, width)
    return _lengths((height / shorter, width / shorter), 1.0)


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


def _patient_axes(affine: np.ndarray) -> np.ndarray:
    """For each axis of an array the axis of the patient that it is nearest to: right 0, front 1, top 2; each once."""
    cosines = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    best = max(itertools.permutations(range(3)), key=lambda axes: sum(cosines[axes[k], k] for k in range(3)))
    return np.array(best)


def _plane_across(patient_axis: int) -> str:
    """The plane whose slices follow each other along an axis of the patient."""
    return next(plane for plane, letters in VIEWS.items() if letters[2] in LETTERS[patient_axis])


def _acquired_plane(sides: np.ndarray, shape: Sequence[int], patient_axes: np.ndarray) -> str:
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:  # one slice, whatever its thickness
        return _plane_across(int(patient_axes[single[0]]))
    axis_of = {_plane_across(int(patient_axes[axis])): axis for axis in range(3)}
    coarsest = [plane for plane in VIEWS if sides[axis_of[plane]] * _EQUAL > sides.max()]
    sides_of = {plane: [shape[axis] for axis in range(3) if axis != axis_of[plane]] for plane in coarsest}
    return next((plane for plane in coarsest if min(sides_of[plane]) >= MIN_SIDE), coarsest[0])


def _check_cut(file_name: str, stack: Stack, plane: str, own_plane: str) -> None:
    """Raises `NoImageError` if a stack cannot be cut in another plane than its own."""
    reason = f"cannot be cut in the {plane} plane"
    if not own_plane:
        raise NoImageError(
            f"{file_name} must say where its slices lie, at even steps, to be shown in the {plane} plane; only"
            f' `plane="{ACQUIRED}"` shows it.',
            reason,
        )
    if len(stack.raw) < MIN_SIDE:
        raise NoImageError(
            f"{file_name} must have at least {MIN_SIDE} slices to be shown in the {plane} plane, got {len(stack.raw)}"
            f" {own_plane} ones.",
            reason,
        )
    assert stack.affine is not None
    steps = stack.affine[:3, :3] / np.linalg.norm(stack.affine[:3, :3], axis=0)
    if np.abs(steps.T @ steps - np.eye(3)).max() > _SKEW:
        raise NoImageError(
            f"{file_name} must have axes at right angles to be shown in the {plane} plane, but its slices are sheared, as"
            " with a tilted gantry.",
            reason,
        )


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
