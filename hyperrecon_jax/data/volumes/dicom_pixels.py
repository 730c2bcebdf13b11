"""The numbers of a DICOM file: its pixels decoded, its look-up tables applied, and which values are padding."""

from typing import Any, NamedTuple

import numpy as np

from hyperrecon_jax.data.volumes.intensity import luminance
from hyperrecon_jax.data.volumes.stack import brief
from hyperrecon_jax.runtime.errors import InputError

PADDING = (  # names of the attributes with one end of the range of padding, and with the other
    ("PixelPaddingValue", "PixelPaddingRangeLimit"),
    ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
)
DECODERS = "pip install python-gdcm"  # what reads the compressions that pydicom does not


class Pixels(NamedTuple):
    """The stored values of all frames. Rescale slope and intercept are not applied."""

    raw: np.ndarray  # (n, h, w)
    notes: list[str]
    padding: tuple[float, float] | None  # as in `Stack`


def read_pixels(file_name: str, data: Any, n: int, h: int, w: int) -> Pixels:
    """The pixels of a dataset of `n` frames of `h` rows and `w` columns.

    Colours become their luminance, also those of a palette. A modality look-up table is applied.

    Raises:
        InputError: for pixels of another kind, or of a compression that is not supported.
    """
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    photometric = str(data.PhotometricInterpretation)
    is_palette = photometric == "PALETTE COLOR"
    if photometric not in ("MONOCHROME1", "MONOCHROME2", "RGB") and not (is_palette or photometric.startswith("YBR")):
        raise InputError(
            f"{file_name} must be gray, RGB or of a palette, got the photometric interpretation {photometric!r}."
        )
    pixels = _decode_pixels(file_name, data)
    if is_palette:
        pixels = apply_color_lut(pixels, data)[..., :3]
    if pixels.shape[-1] == 3 and pixels.ndim == (3 if n == 1 else 4):
        frames = pixels.reshape(n, h, w, 3)
        return Pixels(np.stack([luminance(frame) for frame in frames]), ["colours became their luminance"], None)
    pixels, padding = pixels.reshape(n, h, w), _find_padding(data)
    if not data.get("ModalityLUTSequence"):
        return Pixels(pixels, [], padding)
    values = apply_modality_lut(pixels, data).astype(np.float32)
    if padding is not None:  # it is of the stored values; those of a table are never below 0
        values[(pixels >= padding[0]) & (pixels <= padding[1])] = -1
        padding = -1.0, -1.0
    return Pixels(values, ["its modality look-up table was applied"], padding)


def _find_padding(data: Any) -> tuple[float, float] | None:
    """The lowest and the highest stored value of padding; None if the file has no padding."""
    for key, limit_key in PADDING:
        first = data.get(key)
        if first is None or first == "":
            continue
        ends = [_to_number(first)]
        limit = data.get(limit_key)
        if limit is not None and limit != "":
            ends.append(_to_number(limit))
        if key == "PixelPaddingValue":
            wrapped = [float(_wrap(int(end), data)) for end in ends]
            # A range that the bits do not hold has no meaning, but its first value has.
            ends = wrapped if abs(wrapped[-1] - wrapped[0]) == abs(ends[-1] - ends[0]) else wrapped[:1]
        return float(min(ends)), float(max(ends))
    return None


def _wrap(value: int, data: Any) -> int:
    """A number as a stored value: writers disagree whether padding is signed, and pydicom takes unused bits away."""
    bits = int(data.BitsStored)
    value &= (1 << bits) - 1
    return value - (1 << bits) if data.PixelRepresentation and value >> (bits - 1) else value


def _to_number(value: Any) -> float:
    """The number of an attribute, also where pydicom does not know its type."""
    if isinstance(value, bytes):
        return int.from_bytes(value[:2], "little")
    return float(np.ravel(value)[0])


def _decode_pixels(file_name: str, data: Any) -> np.ndarray:
    """The pixels of all frames, as pydicom gives them; raises `InputError` if their compression is not supported."""
    import pydicom
    from pydicom.pixels import get_decoder, pixel_array

    syntax = getattr(data, "file_meta", {}).get("TransferSyntaxUID")
    if syntax is None:  # a file without a preamble, which is uncompressed
        data.file_meta = pydicom.dataset.FileMetaDataset()
        is_implicit, is_little_endian = data.original_encoding
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        if not (is_implicit and is_little_endian):
            data.file_meta.TransferSyntaxUID = (
                pydicom.uid.ExplicitVRLittleEndian if is_little_endian else pydicom.uid.ExplicitVRBigEndian
            )
    try:
        return pixel_array(data)
    except Exception as error:
        if syntax is None or not syntax.is_compressed:
            raise
        try:
            can_decode = get_decoder(syntax).is_available
        except NotImplementedError:  # of video
            can_decode = True
        advice = f"save it without compression ({brief(error)})" if can_decode else f"run: {DECODERS}"
        raise InputError(
            f"{file_name} must be a DICOM file whose pixels can be decoded, but they are compressed as {syntax.name};"
            f" {advice}"
        ) from error
