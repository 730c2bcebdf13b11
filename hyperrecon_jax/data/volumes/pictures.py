"""Read PNG, JPEG and TIFF files.

Pillow reads them, except where it would change numbers: of PNG with 16-bit colours it keeps 8 bits, so `_read_deep_png`
takes them in two halves; TIFF of other types than those of `_is_lossless` is read by tifffile.
"""

import contextlib
import io
import zlib
from typing import Any

import numpy as np

from hyperrecon_jax.data.volumes import geometry, placement
from hyperrecon_jax.data.volumes.intensity import luminance
from hyperrecon_jax.data.volumes.memory_limit import check_memory
from hyperrecon_jax.data.volumes.stack import Stack, check_size, type_unit
from hyperrecon_jax.runtime.errors import InputError

# tags of TIFF, and of EXIF
BITS_PER_SAMPLE, PHOTOMETRIC, ORIENTATION, SAMPLE_FORMAT, IMAGE_DEPTH = 258, 262, 274, 339, 32997
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # values of SAMPLE_FORMAT
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = 0, 1, 2, 3  # values of PHOTOMETRIC
MAX_SAMPLES = 8  # of a pixel: colours, transparency and others that are ignored
DEFLATE = (8, 32946)  # values of the tag Compression
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# colour type of a PNG -> Pillow's mode, and its names for the high and the low bytes of 16 bits
DEEP_COLOURS = {2: ("RGB", "RGB;16B", "RGB;16L"), 6: ("RGBA", "RGBA;16B", "RGBA;16L")}
_PIXEL = np.dtype(np.float32)  # what a pixel of a picture takes at most: colours, or the float32 luminance of them
GRAY_AND_ALPHA = 4  # colour type of a PNG


def read(file_name: str, content: bytes) -> Stack:
    """The pages of a file; `file_name` is for messages."""
    from PIL import Image

    if content.startswith(TIFF_HEADS):
        return _read_tiff(file_name, content)
    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as file:
        w, h = file.size
        check_size(file_name, 1, h, w)
        check_memory(file_name, h * w, _PIXEL)
        bits, colour_type = content[24:26] if file.format == "PNG" else (8, 0)
        is_deep = bits == 16 and colour_type in (*DEEP_COLOURS, GRAY_AND_ALPHA)
        orientation, affine = 1, None
        with contextlib.suppress(Exception):  # a picture is read even if such entries are damaged
            orientation = file.getexif().get(ORIENTATION, 1)
            affine = placement.picture_affine(dict(file.info), orientation)
        pixels = _read_deep_png(content, colour_type) if is_deep else _to_pixels(file)
        frames = getattr(file, "n_frames", 1)  # of an animated PNG, or of a camera's JPEG with previews
    stack = _to_stack(file_name, [geometry.turn_upright(pixels, orientation)], affine)
    return stack._replace(notes=[f"the first of {frames} frames", *stack.notes]) if frames > 1 else stack


def _to_pixels(file: Any) -> np.ndarray:
    """The page of an open file: gray `(h, w)`, or colours `(h, w, 3)`."""
    if file.mode in ("LA", "La"):
        return np.asarray(file.getchannel(0))
    if file.mode in ("1", "L", "F") or file.mode.startswith("I"):
        return np.asarray(file)
    return np.asarray(file.convert("RGB"))


def _to_stack(file_name: str, pages: list[np.ndarray], affine: np.ndarray | None, *, inverted: bool = False) -> Stack:
    """Pages of one size, gray or in colours."""
    sizes = list(dict.fromkeys(page.shape[:2] for page in pages))
    if len(sizes) > 1:
        (h, w), (other_h, other_w) = sizes[:2]
        raise InputError(f"{file_name} must hold pages of one size, got {h} x {w} and {other_h} x {other_w}.")
    units = list(dict.fromkeys(type_unit(page.dtype) for page in pages))
    if len(units) > 1:
        raise InputError(f"{file_name} must hold pages of one type, got {units[0]} and {units[1]}.")
    is_colour = any(page.ndim == 3 for page in pages)
    gray = np.stack([luminance(page) if page.ndim == 3 else page for page in pages])
    notes = ["colours became their luminance"] if is_colour else []
    return Stack(gray, notes, affine=affine, inverted=inverted, unit=units[0])


def _read_deep_png(content: bytes, colour_type: int) -> np.ndarray:
    """The 16-bit colours of a PNG, `(h, w, 3)`, or its gray values without transparency, `(h, w)`: uint16.

    Pillow keeps one byte of each number. It is told that the file is of other byte orders, or of 8 bits and more channels:
    only the number of bytes a pixel counts when it decodes.
    """
    if colour_type == GRAY_AND_ALPHA:
        high_and_low = _decode_png(content, "RGBA", "RGBA")
        return high_and_low[..., 0].astype(np.uint16) << 8 | high_and_low[..., 1]
    mode, high, low = DEEP_COLOURS[colour_type]
    return (_decode_png(content, mode, high).astype(np.uint16) << 8 | _decode_png(content, mode, low))[..., :3]


def _decode_png(content: bytes, mode: str, raw_mode: str) -> np.ndarray:
    """The bytes of a PNG as Pillow's `raw_mode` arranges them in `mode`."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("PNG",)) as file:
        assert file.mode == mode
        tile: Any = (*file.tile[0][:3], raw_mode)
        file.tile = [tile]
        return np.asarray(file)


def _read_tiff(file_name: str, content: bytes) -> Stack:
    """The pages of a TIFF file. Those in which white is 0 are as they are stored, at every depth."""
    from PIL import Image, UnidentifiedImageError

    _check_pages(file_name, content)
    pages, photometrics, affine = [], [], None
    try:
        file: Any
        with Image.open(io.BytesIO(content), formats=("TIFF",)) as file:
            n = getattr(file, "n_frames", 1)
            check_size(file_name, n, *file.size[::-1])
            check_memory(file_name, n * file.size[0] * file.size[1], _PIXEL)
            with contextlib.suppress(Exception):
                affine = placement.picture_affine(dict(file.info), 1)  # Pillow turns pages itself
            for k in range(n):
                file.seek(k)
                check_size(file_name, n, *file.size[::-1])
                if not _is_lossless(file.tag_v2):
                    return _read_tiff_exactly(file_name, content)
                photometrics.append(file.tag_v2.get(PHOTOMETRIC))
                pixels = _to_pixels(file)
                if photometrics[-1] == WHITE_IS_ZERO and file.mode in ("1", "L"):
                    pixels = ~pixels  # Pillow has inverted them, but not those of more bits
                pages.append(pixels)
    except UnidentifiedImageError:  # an unusual type
        return _read_tiff_exactly(file_name, content)
    return _to_stack(file_name, pages, affine, inverted=_is_inverted(file_name, photometrics))


def _check_pages(file_name: str, content: bytes) -> None:
    """Raise `InputError` if a file says that it has more slices than pages, as ImageJ's and tifffile's can."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        described = sum(series.size for series in file.series)
        stored = sum(page.size for page in file.pages)
    if described > stored:
        raise InputError(
            f"{file_name} must hold a page for each slice, but it describes {described} numbers and has pages of {stored};"
            " save it without `truncate`, or as several files."
        )


def _is_lossless(tags: Any) -> bool:
    """Whether Pillow keeps the numbers of a page. Of a page of several planes it would read the first alone."""
    if tags.get(IMAGE_DEPTH, 1) != 1:
        return False
    bits, form = tags.get(BITS_PER_SAMPLE, (1,)), set(tags.get(SAMPLE_FORMAT, (UNSIGNED,)))
    if form == {UNSIGNED}:
        return max(bits) <= 8 or bits in ((12,), (16,))
    return (form == {SIGNED} and bits in ((16,), (32,))) or (form == {FLOAT} and bits == (32,))


def _is_inverted(file_name: str, photometrics: list[Any]) -> bool:
    """Whether white is 0 in all pages."""
    inverted = {photometric == WHITE_IS_ZERO for photometric in photometrics}
    if len(inverted) > 1:
        raise InputError(f"{file_name} must hold pages of one kind, but white is 0 in some pages and black in others.")
    return True in inverted


def _read_tiff_exactly(file_name: str, content: bytes) -> Stack:
    """The pages of a TIFF file of numbers that Pillow does not read, or would change."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        n, pages, photometrics = len(file.pages), [], []
        affine = None
        for page_or_frame in file.pages:
            page: Any = page_or_frame.aspage()
            check_size(file_name, n, page.imagelength, page.imagewidth)
            check_memory(file_name, n * page.imagelength * page.imagewidth, page.dtype or _PIXEL)
            if page.imagedepth != 1:
                raise InputError(f"{file_name} must hold a page for each slice, got one of {page.imagedepth} planes.")
            if page.dtype is None or page.dtype.kind not in "biuf":
                raise InputError(f"{file_name} must hold pages of real numbers, got {page.dtype} of shape {page.shape}.")
            if page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE):
                raise InputError(f"{file_name} must be gray or RGB, got {page.dtype} of the kind {page.photometric.name}.")
            if page.samplesperpixel > MAX_SAMPLES:
                raise InputError(f"{file_name} must have up to {MAX_SAMPLES} numbers a pixel, got {page.samplesperpixel}.")
            photometrics.append(int(page.photometric))
            orientation = int(page.tags.valueof(ORIENTATION, 1))
            with contextlib.suppress(Exception):
                affine = placement.picture_affine({"dpi": page.get_resolution()}, orientation)
            pages.append(geometry.turn_upright(_tiff_pixels(file_name, content, page), orientation))
    return _to_stack(file_name, pages, affine, inverted=_is_inverted(file_name, photometrics))


def _tiff_pixels(file_name: str, content: bytes, page: Any) -> np.ndarray:
    """The page of an open file: gray `(h, w)`, or colours `(h, w, 3)`."""
    if page.compression in DEFLATE:  # tifffile would decompress any number of bytes
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            segment = zlib.decompressobj().decompress(content[offset : offset + count], page.nbytes + 1)
            if len(segment) > page.nbytes:
                raise InputError(f"{file_name} must hold pages of {page.nbytes} bytes, but there are more.")
    try:
        pixels = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise InputError(
            f"{file_name} must be TIFF of {page.dtype} that is not compressed as {page.compression.name}; save it without"
            " compression, or run: pip install imagecodecs"
        ) from error
    if page.photometric == PALETTE:
        return np.moveaxis(page.colormap, 0, -1)[pixels]
    channels = 3 if page.photometric == RGB else 1
    if page.samplesperpixel > 1 and page.planarconfig == page.planarconfig.SEPARATE:
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = pixels.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)[..., :channels]
    return pixels if channels == 3 else pixels[..., 0]
