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
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hyperrecon_jax.data.volumes.stack import MIN_SIDE, NoImageError, Stack
from hyperrecon_jax.runtime.errors import InputError

# To where rows (down the picture), columns (across it) and slices run; `LETTERS` has the letters.
# The patient's right is on the left of axial and coronal slices; a sagittal slice looks to the left.
VIEWS = {"axial": "PLS", "coronal": "ILP", "sagittal": "IPR"}
ACQUIRED = "acquired"
PLANES = (*VIEWS, ACQUIRED)
LETTERS = ("LR", "PA", "IS")  # to the left, right; back (posterior), front; bottom (inferior), top

_SQUARE = 1.01  # sides of a pixel that differ by less count as equal
_EQUAL = 1.1  # sides of a voxel that differ by less count as equal
_OBLIQUE = math.sin(math.radians(20))  # a direction has a second letter if it is so far from its first
_SKEW = math.sin(math.radians(5))  # a stack is only cut in another plane if its axes are nearer to right angles than this


class View(NamedTuple):
    """How an array is shown: its axes in the order rows, columns, slices, and which of these are flipped."""

    plane: str
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]


def check_plane(plane: str) -> None:
    """Raises `InputError` if `plane` is none of `PLANES`."""
    if plane not in PLANES:
        raise InputError(f"`plane` must be one of {', '.join(PLANES)}, got {plane!r}.")


def pixel_size(affine: np.ndarray | None) -> tuple[float, float]:
    """Height and width of a pixel in mm; (1, 1) if the affine is not known, or one is more than 100 times the other."""
    sides = np.ones(2) if affine is None else np.linalg.norm(affine[:3, :2], axis=0)
    if not sides.max() <= 100 * sides.min() < math.inf:
        return 1.0, 1.0
    return float(sides[0]), float(sides[1])


def is_square(height: float, width: float) -> bool:
    """Whether pixels of these sides count as squares."""
    return max(height, width) <= _SQUARE * min(height, width)


def plane_of(affine: np.ndarray) -> str:
    """The plane of the slices of an affine: that of the anatomical axis that is nearest to the third axis."""
    return _plane_across(int(_patient_axes(affine)[2]))


def edge_letters(affine: np.ndarray) -> dict[str, str]:
    """Letters for the edges of the slices of an affine: to where the picture's left, right, top and bottom lie.

    The first letter is that of the nearest direction of the patient. A second one follows where the slice is oblique, by
    more than `_OBLIQUE`.
    """
    down, across, _ = (affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)).T
    directions = {"left": -across, "right": across, "top": -down, "bottom": down}
    return {edge: _direction_letters(direction) for edge, direction in directions.items()}


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
        padding=None if stack.padding is None else (turn(stack.padding[0]), turn(stack.padding[1])),
        affine=arrange_affine(stack.affine, (h, w, n), view),
    )


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A picture `(h, w, ...)` turned by the orientation tag of EXIF: 1 to 8; anything else leaves it."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    vertical, horizontal = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return pixels[:: -1 if vertical else 1, :: -1 if horizontal else 1]


def _direction_letters(direction: np.ndarray) -> str:
    order = np.argsort(-np.abs(direction), kind="stable")
    letters = [LETTERS[axis][int(direction[axis] > 0)] for axis in order[:2]]
    return "".join(letters if abs(direction[order[1]]) > _OBLIQUE else letters[:1])


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
