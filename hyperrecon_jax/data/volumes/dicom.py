"""Read a DICOM file of one or more frames."""

import io
import math
from typing import Any

import numpy as np

from hyperrecon_jax.data.volumes.dicom_pixels import read_pixels
from hyperrecon_jax.data.volumes.stack import Stack, check_size
from hyperrecon_jax.runtime.errors import InputError


def read(file_name: str, content: bytes) -> Stack:
    """The frames of a file; `file_name` is for messages."""
    import pydicom

    if b"1.2.840.10008.1.2.1.99" in content[:4096]:  # it would be inflated whole, to any size, before there is a header
        raise InputError(f"{file_name} must be a DICOM file that is not deflated as a whole; save it without compression.")
    data = pydicom.dcmread(io.BytesIO(content), force=content[128:132] != b"DICM")
    missing = [key for key in ("Rows", "Columns", "PhotometricInterpretation") if data.get(key) is None]
    if missing or not any(key in data for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise InputError(f"{file_name} must be a DICOM file with an image, but it lacks {', '.join(missing) or 'pixels'}.")
    n, h, w = int(data.get("NumberOfFrames") or 1), int(data.Rows), int(data.Columns)
    check_size(file_name, n, h, w)
    pixels = read_pixels(file_name, data, n, h, w)
    notes = pixels.notes
    slopes, intercepts = _frame_values(data, n, "PixelValueTransformationSequence", "RescaleSlope", "RescaleIntercept")
    affine, space = _affine(data, n)
    if space == 0:
        notes.append("the file does not say where its slices lie")
    return Stack(
        pixels.raw,
        notes,
        slope=np.array([1.0 if slope is None else float(slope) for slope in slopes])[:, None, None],
        intercept=np.array([0.0 if value is None else float(value) for value in intercepts])[:, None, None],
        affine=affine,
        space=space,
        inverted=data.PhotometricInterpretation == "MONOCHROME1",
        padding=pixels.padding,
    )


def _frame_values(data: Any, n: int, sequence: str, *keys: str) -> list[list[Any]]:
    """For each key the values of all frames: that of the frame, else of all frames, else of the file, else None."""
    per_frame, shared = (list(data.get(f"{scope}FunctionalGroupsSequence") or []) for scope in ("PerFrame", "Shared"))
    columns: list[list[Any]] = [[] for _ in keys]
    for k in range(n):
        groups = [*per_frame[k : k + 1], *shared[:1]]
        items = [item for group in groups for item in list(group.get(sequence) or [])[:1]] + [data]
        for key, values in zip(keys, columns, strict=True):
            values.append(next((item.get(key) for item in items if item.get(key) is not None), None))
    return columns


def _affine(data: Any, n: int) -> tuple[np.ndarray | None, int]:
    """`affine` and `space` of a `Volume`. Positions are only used if the frames lie at equal steps in one direction."""
    (spacings,) = _frame_values(data, n, "PixelMeasuresSequence", "PixelSpacing")
    gaps, thicknesses = _frame_values(data, n, "PixelMeasuresSequence", "SpacingBetweenSlices", "SliceThickness")
    (directions,) = _frame_values(data, n, "PlaneOrientationSequence", "ImageOrientationPatient")
    (positions,) = _frame_values(data, n, "PlanePositionSequence", "ImagePositionPatient")
    if spacings[0] is None:
        return None, 0
    spacing = np.array([float(value) for value in spacings[0]])  # between rows, between columns
    gap = abs(float(gaps[0] or thicknesses[0] or 0)) or 1.0
    if spacing.shape != (2,) or not (np.isfinite(spacing).all() and (spacing > 0).all() and math.isfinite(gap)):
        return None, 0
    lengths = np.diag([-spacing[0], -spacing[1], gap, 1.0])[[1, 0, 2, 3]]  # rows to the back, columns to the left
    if any(d is None or len(d) != 6 for d in directions) or any(p is None or len(p) != 3 for p in positions):
        return lengths, 0
    direction = np.array([[float(v) for v in d] for d in directions])
    position = np.array([[float(v) for v in p] for p in positions])
    across, down = direction[0, :3], direction[0, 3:]
    is_unit = np.allclose([across @ across, down @ down, across @ down], [1, 1, 0], rtol=0, atol=1e-3)
    step = (position[-1] - position[0]) / (n - 1) if n > 1 else np.cross(across, down) * gap
    is_even = np.allclose(position, position[0] + np.arange(n)[:, None] * step, rtol=0, atol=1e-2)
    is_apart = abs(step @ np.cross(across, down)) > 1e-3  # not the same slice at several times
    if not (is_unit and is_even and is_apart and np.allclose(direction, direction[0], rtol=0, atol=1e-4)):
        return lengths, 0
    affine = np.eye(4)
    affine[:3] = np.stack([down * spacing[0], across * spacing[1], step, position[0]], axis=1)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, 1  # DICOM's mm run to the left and back
