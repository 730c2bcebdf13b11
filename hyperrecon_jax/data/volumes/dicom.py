"""Read a DICOM file of one or more frames."""

import io
import math
from typing import Any

import numpy as np

from hyperrecon_jax.data.volumes import placement
from hyperrecon_jax.data.volumes.dicom_pixels import read_pixels
from hyperrecon_jax.data.volumes.memory_limit import check_memory
from hyperrecon_jax.data.volumes.mosaic import Mosaic, find_mosaic
from hyperrecon_jax.data.volumes.stack import NoImageError, Stack, check_size, describe_frame
from hyperrecon_jax.runtime.errors import InputError

IDENTITY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
    *("FrameOfReferenceUID", "Modality"),
)
_SPACINGS = ("ImagerPixelSpacing", "NominalScannedPixelSpacing")  # in mm, if there is no PixelSpacing
_IMAGES = ("Image", "Enhanced US Volume", "Parametric Map")  # what the names of classes with images contain


def read(file_name: str, content: bytes, frame: int = 0) -> Stack:
    """The images of a file as they are stored, in the order of their positions; `file_name` is for messages.

    If each position has several images, such as times, they are those of the volume `frame`, or the last one. The slices
    that a Siemens mosaic tiles are images, too.

    Raises:
        NoImageError: if it is a DICOM file of another kind, such as a report.
    """
    import pydicom

    if b"1.2.840.10008.1.2.1.99" in content[:4096]:  # it would be inflated whole, to any size, before there is a header
        raise InputError(f"{file_name} must be a DICOM file that is not deflated as a whole; save it without compression.")
    data = pydicom.dcmread(io.BytesIO(content), force=content[128:132] != b"DICM")
    is_image = _image_class(file_name, data)
    missing = [key for key in ("Rows", "Columns", "PhotometricInterpretation") if data.get(key) is None]
    if missing or not any(key in data for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        message = f"{file_name} must be a DICOM file with an image, but it lacks {', '.join(missing) or 'pixels'}."
        raise InputError(message) if is_image else NoImageError(message, "a DICOM file without an image")
    n, h, w = int(data.get("NumberOfFrames") or 1), int(data.Rows), int(data.Columns)
    check_size(file_name, n, h, w)
    stored = np.dtype(f"u{4 if int(data.get('BitsAllocated') or 16) > 16 else 2}")
    check_memory(file_name, n * h * w * int(data.get("SamplesPerPixel") or 1), stored)
    mosaic = find_mosaic(file_name, data)
    if mosaic:
        check_size(file_name, mosaic.num_slices, h // mosaic.num_tiles, w // mosaic.num_tiles)
    pixels = read_pixels(file_name, data, n, h, w)
    raw, notes = pixels.raw, pixels.notes
    if mosaic:
        n, raw = mosaic.num_slices, mosaic.cut(raw[0])
        notes = [*notes, f"the {n} slices of a Siemens mosaic"]
    layouts = _lay_out(data, n, mosaic)
    frame = min(frame, len(layouts) - 1)
    layout = layouts[frame]
    if len(layouts) > 1:
        notes.append(describe_frame(frame, len(layouts)))
    slopes, intercepts = _frame_values(data, n, "PixelValueTransformationSequence", "RescaleSlope", "RescaleIntercept")
    order = layout.order
    return Stack(
        raw if np.array_equal(order, np.arange(n)) else raw[order],
        [*notes, *layout.notes],
        slope=np.array([1.0 if slope is None else float(slope) for slope in slopes])[order, None, None],
        intercept=np.array([0.0 if value is None else float(value) for value in intercepts])[order, None, None],
        affine=layout.affine,
        space=layout.space,
        identity=tuple((key, str(data[key].value)) for key in IDENTITY if data.get(key)),
        inverted=data.PhotometricInterpretation == "MONOCHROME1",
        padding=pixels.padding,
        is_metric=layout.affine is not None and _is_metric(data, n),
        frames=len(layouts),
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


def _lay_out(data: Any, n: int, mosaic: Mosaic | None) -> list[placement.Layout]:
    """The volumes of a file: the order of the frames and where they lie."""
    try:
        return _read_layout(data, n, mosaic)
    except (ValueError, TypeError):  # an entry that is no number: pydicom says so when it is read
        return placement.lay_out([None] * n, [None] * n, None, 1.0)


def _read_layout(data: Any, n: int, mosaic: Mosaic | None) -> list[placement.Layout]:
    (directions,) = _frame_values(data, n, "PlaneOrientationSequence", "ImageOrientationPatient")
    (positions,) = _frame_values(data, n, "PlanePositionSequence", "ImagePositionPatient")
    gaps, thicknesses = _frame_values(data, n, "PixelMeasuresSequence", "SpacingBetweenSlices", "SliceThickness")
    gap = abs(_to_float(gaps[0]) or _to_float(thicknesses[0])) or 1.0
    spacing = _pixel_spacing(data, n)
    return placement.lay_out(directions, mosaic.place(data, spacing, gap) if mosaic else positions, spacing, gap)


def _pixel_spacing(data: Any, n: int) -> tuple[float, float] | None:
    """Distance from row to row and from column to column in mm, or in units of the pixel's height; None if not known."""
    (spacings,) = _frame_values(data, n, "PixelMeasuresSequence", "PixelSpacing")
    values = (spacings[0], *(data.get(key) for key in (*_SPACINGS, "PixelAspectRatio")))
    return next(filter(None, map(_to_pair, values)), None)


def _is_metric(data: Any, n: int) -> bool:
    """Whether a file says how many mm large its pixels are, not only the ratio of their sides."""
    (spacings,) = _frame_values(data, n, "PixelMeasuresSequence", "PixelSpacing")
    return any(map(_to_pair, (spacings[0], *(data.get(key) for key in _SPACINGS))))


def _to_pair(value: Any) -> tuple[float, float] | None:
    """Two numbers above 0; None for anything else."""
    pair = [_to_float(number) for number in value] if value is not None and np.size(value) == 2 else []
    return (pair[0], pair[1]) if len(pair) == 2 and min(pair) > 0 else None


def _to_float(value: Any) -> float:
    """A number of a file; 0 if it is missing or is no finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _image_class(file_name: str, data: Any) -> bool:
    """Whether the class of a file is one of the standard's classes of images; False if it is not in the standard.

    Raises:
        NoImageError: if it is another class of the standard, such as reports, segmentations and doses.
    """
    from pydicom.uid import UID

    value = data.get("SOPClassUID") or getattr(data, "file_meta", {}).get("MediaStorageSOPClassUID")
    kind = UID(str(value or ""))
    if not (kind.is_valid and kind.type == "SOP Class"):
        return False
    if any(word in kind.name for word in _IMAGES):
        return True
    name = kind.name.removesuffix(" Storage")
    raise NoImageError(f"{file_name} must be a DICOM file with an image, but it is of the class {name}.", f"{name} (DICOM)")
