"""Write a reconstruction as a PNG, `.npz`, NIfTI or DICOM file that carries its metadata."""

import contextlib
import gzip
import io
import json
import math
import numbers
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from hyperrecon_jax.data import grid
from hyperrecon_jax.data.volumes import geometry, placement
from hyperrecon_jax.data.volumes.reading import Volume, crop, shift
from hyperrecon_jax.runtime.errors import InputError

EMPTY_IN_DICOM = (  # fields that must be there, even if nothing is known
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
    *("SeriesNumber", "PositionReferenceIndicator", "Laterality", "PatientOrientation"),
)
MAX_COMMENT = 10240  # characters of DICOM's ImageComments


def png(
    image: np.ndarray,
    *,
    window: float,
    level: float,
    text: Mapping[str, str],
    pixel_size: tuple[float, float] = (1.0, 1.0),
) -> bytes:
    """An image as an 8-bit gray PNG of square pixels.

    Args:
        image: `(h, w)`, real.
        window: width of the range of values from black to white, above 0.
        level: the middle of that range.
        text: metadata, written as tEXt chunks (iTXt where Latin-1 lacks a character); keys of 1 to 79 Latin-1 characters.
        pixel_size: height and width of a pixel of `image`. Where they differ by more than 1 %, the image is resampled to
            square pixels as wide as the shorter side.

    Raises:
        InputError: if an argument is not as above.
    """
    from PIL import Image, PngImagePlugin

    image = _check_real("image", image)
    if image.ndim != 2 or not image.size:
        raise InputError(f"`image` must have shape (h, w), got {image.shape}.")
    if not (math.isfinite(window) and window > 0):
        raise InputError(f"`window` must be a finite number above 0, got {window!r}.")
    if not math.isfinite(level):
        raise InputError(f"`level` must be a finite number, got {level!r}.")
    chunks = PngImagePlugin.PngInfo()
    for key, value in text.items():
        if not (isinstance(key, str) and 1 <= len(key) <= 79 and key.isprintable() and max(key) <= "\xff"):
            raise InputError(f"`text` must have keys of 1 to 79 printable Latin-1 characters, got {key!r}.")
        if not isinstance(value, str) or "\0" in value:
            raise InputError(f"`text[{key!r}]` must be a string without the character 0, got {value!r}.")
        chunks.add_text(key, value)
    height, width = pixel_size
    if not (0 < height < math.inf and 0 < width < math.inf):
        raise InputError(f"`pixel_size` must be two finite numbers above 0, got {pixel_size!r}.")
    if not geometry.is_square(height, width):
        rows, columns = (max(1, round(n * side / min(pixel_size))) for n, side in zip(image.shape, pixel_size, strict=True))
        image = grid.resample(image[None], rows, columns)[0]
    gray = np.clip((image.astype(np.float64) - level) / window + 0.5, 0, 1)
    stream = io.BytesIO()
    Image.fromarray(np.rint(255 * gray).astype(np.uint8)).save(stream, "PNG", pnginfo=chunks)
    return stream.getvalue()


def npz(images: np.ndarray, metadata: Mapping[str, Any]) -> bytes:
    """A `.npz` archive of the array `image` and the JSON string `metadata`; a `.npy` file cannot hold both.

        with np.load("out.npz") as file:
            images, metadata = file["image"], json.loads(str(file["metadata"]))

    Raises:
        InputError: if `images` are no numbers, or JSON cannot hold `metadata`.
    """
    images = np.asarray(images)
    if images.dtype.kind not in "biufc":
        raise InputError(f"`images` must be an array of numbers, got {images.dtype}.")
    stream = io.BytesIO()
    np.savez_compressed(stream, image=images, metadata=np.array(_to_json("metadata", metadata)))
    return stream.getvalue()


def nifti(volume: Volume, index: int | None, image: np.ndarray, text: Mapping[str, Any]) -> bytes:
    """The reconstruction of a slice as a `.nii.gz` file, in the units of the original file and at the slice's position.

    The padding of images is cut off. The array is float32, `(rows, columns, 1)` with the affine of that slice. If
    `volume.space` is 0, position and direction are not known, and the file claims none (sform and qform codes 0). Its
    array is then `(columns, rows, 1)`, rows from the bottom up, so that viewers show it upright.

    Args:
        volume: the original file, as `read` gives it.
        index: index of the slice; None for all slices.
        image: `(h, w)` of the size of `volume.slices`, in their units, real; `(n, h, w)` if `index` is None.
        text: metadata, written as JSON in a header extension of the kind "comment".

    Raises:
        InputError: if `index` or `image` does not fit the volume, or JSON cannot hold `text`.
    """
    import nibabel

    n, values = len(volume.slices), _file_values(volume, index, image)
    (low, high), affine = volume.scale, volume.affine
    # every viewer reads 32 bits, but some units are beyond their range
    dtype = np.float32 if 1e-30 < max(abs(low), abs(high)) < 1e37 else np.float64
    values = np.ascontiguousarray(values.transpose(1, 2, 0), dtype)

    file: Any
    if affine is not None and volume.space:
        slice_affine = affine @ shift(*volume.corner, index or 0)
        file = nibabel.Nifti1Image(values, slice_affine)
        file.set_sform(slice_affine, volume.space)
        file.set_qform(slice_affine, volume.space)
    else:
        file = nibabel.Nifti1Image(values[::-1].transpose(1, 0, 2), None)
        if affine is not None:
            row, column, step = np.linalg.norm(affine[:3, :3], axis=0)
            file.header.set_zooms((column, row, step))
    file.header["descrip"] = f"hyperrecon_jax, {f'slice {index} of' if index is not None else 'all of'} {n}".encode()
    file.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", _to_json("text", text).encode()))
    return gzip.compress(file.to_bytes(), mtime=0)  # the same bytes for the same image


def dicom(volume: Volume, index: int | None, image: np.ndarray, text: Mapping[str, Any]) -> list[bytes]:
    """The reconstruction of a slice, or of all, as a new DICOM series of derived images: a file for each slice.

    The files have the units, the positions and the spacing of the original file. If that was DICOM, they belong to its
    patient, study and frame of reference. Their SeriesInstanceUID and SOPInstanceUID are new with every call. Values are
    stored in 16 bits with slope and intercept. They are MR images, or secondary captures where the positions are not known
    or the original is of another modality; MONOCHROME2, or MONOCHROME1 where large values of the original are dark.

    Args:
        volume: the original file, as `read` gives it.
        index: index of the slice; None for all slices.
        image: `(h, w)` of the size of `volume.slices`, in their units, real; `(n, h, w)` if `index` is None.
        text: metadata, written as JSON into ImageComments.

    Raises:
        InputError: if `index` or `image` does not fit the volume, or `text` is no JSON or takes more than `MAX_COMMENT`
            characters.
    """
    from pydicom.uid import generate_uid

    values, comment = _file_values(volume, index, image), _to_json("text", text)
    if len(comment) > MAX_COMMENT:
        raise InputError(f"`text` must take at most {MAX_COMMENT} characters as JSON, got {len(comment)}.")
    low, high = float(values.min()), float(values.max())
    slope, intercept = _decimal((high - low) / 65535 or 1.0), _decimal(low)
    stored = np.rint((values - float(intercept)) / float(slope)).clip(0, 65535).astype("<u2")
    shared = {
        "StudyInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        **dict(volume.identity),
        "SeriesInstanceUID": generate_uid(),
        "PhotometricInterpretation": "MONOCHROME1" if volume.scale[0] > volume.scale[1] else "MONOCHROME2",
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
        "WindowCenter": _decimal((low + high) / 2),
        "WindowWidth": _decimal((high - low) or 1.0),
        "ImageComments": comment,
    }
    first = 0 if index is None else int(index)
    return [_dicom_file(pixels, shared | _place(volume, k), k) for k, pixels in enumerate(stored, first)]


def _place(volume: Volume, index: int) -> dict[str, Any]:
    """The fields of DICOM that say where a slice lies and how large its pixels are."""
    if volume.affine is None:
        return {}
    affine = placement.FLIP @ volume.affine @ shift(*volume.corner, index)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    down, across, step = (affine[:3, :3] / sides).T
    fields: dict[str, Any] = {"PixelSpacing": [_decimal(side) for side in sides[:2]]}
    if not volume.space or abs(down @ across) > 1e-4:  # DICOM has no sheared images
        return fields
    thickness = _decimal(sides[2] * abs(step @ np.cross(across, down)))
    return fields | {
        "ImagePositionPatient": [_decimal(value) for value in affine[:3, 3]],
        "ImageOrientationPatient": [_decimal(value) for value in (*across, *down)],
        "SliceThickness": thickness,
        "SpacingBetweenSlices": thickness,
    }


def _dicom_file(pixels: np.ndarray, fields: Mapping[str, Any], index: int) -> bytes:
    """A DICOM file of one slice `(h, w)` uint16."""
    import pydicom
    from pydicom import uid

    is_mr = "ImagePositionPatient" in fields and fields.get("Modality", "MR") == "MR"
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID = uid.MRImageStorage if is_mr else uid.SecondaryCaptureImageStorage
    data.SOPInstanceUID = uid.generate_uid()
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
        data.SOPClassUID,
        data.SOPInstanceUID,
    )
    data.ImageType, data.Modality = ["DERIVED", "SECONDARY", "OTHER"], "MR" if is_mr else "OT"
    data.DerivationDescription, data.SeriesDescription = "reconstruction of hyperrecon_jax", "hyperrecon_jax"
    data.Manufacturer = data.SoftwareVersions = "hyperrecon_jax"
    for keyword in (
        *EMPTY_IN_DICOM,
        *(("EchoTime", "EchoTrainLength", "ScanOptions", "MRAcquisitionType") if is_mr else ()),
    ):
        setattr(data, keyword, None)
    if is_mr:
        data.ScanningSequence, data.SequenceVariant = "RM", "NONE"
    else:
        data.ConversionType = "WSD"
    for keyword, value in fields.items():
        # what the original file says may break the standard's rules for such a value
        with contextlib.suppress(ValueError, TypeError, UserWarning), warnings.catch_warnings(action="error"):
            setattr(data, keyword, value)
    data.InstanceNumber, data.RescaleType = index + 1, "US"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 1, 16, 16, 15, 0
    data.add_new("PixelData", "OW", pixels.tobytes())
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def _decimal(value: float) -> str:
    """A number as DICOM's decimal string, which has at most 16 characters."""
    return next(text for digits in range(16, 0, -1) if len(text := f"{float(value):.{digits}g}") <= 16)


def _file_values(volume: Volume, index: int | None, image: np.ndarray) -> np.ndarray:
    """An image in the units of the file and without padding, `(n, h, w)` float64, `n` 1 for one slice; checks both."""
    n = len(volume.slices)
    if index is not None and not (isinstance(index, numbers.Integral) and 0 <= index < n):
        raise InputError(f"`index` must be None or a whole number from 0 to {n - 1}, got {index!r}.")
    image = _check_real("image", image)
    expected = (*([n] if index is None else []), *volume.slices.shape[-2:])
    if image.shape != expected:
        raise InputError(f"`image` must have shape {expected}, got {image.shape}.")
    low, high = volume.scale
    values: np.ndarray = low + crop(volume, image).astype(np.float64) * (high - low)
    return values.reshape(-1, *values.shape[-2:])


def _check_real(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise InputError(f"`{name}` must hold real numbers, got {array.dtype}.")
    if not np.isfinite(array).all():
        raise InputError(f"`{name}` must hold finite numbers, but it has NaN or infinity.")
    return array


def _to_json(name: str, metadata: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"`{name}` must be what JSON can hold: {error}.") from error
