"""From the pixels of a scan to the grid of the training images: cut or pad around the centre, then resample.

NumPy and Pillow; images are `(n, h, w)` with square pixels. A reader of a file whose pixels are not square must resample
first.
"""

import numpy as np


def centre(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The middle `rows x columns` pixels; where there are fewer, zeros around them.

    Pixel `h // 2` moves to `rows // 2`, and so for columns. This is the convention of the centred Fourier transform, so
    the middle of k-space stays the middle.
    """
    n, h, w = images.shape
    out = np.zeros((n, rows, columns), images.dtype)
    (to_row, from_row, height), (to_column, from_column, width) = _overlap(h, rows), _overlap(w, columns)
    out[:, to_row : to_row + height, to_column : to_column + width] = images[
        :, from_row : from_row + height, from_column : from_column + width
    ]
    return out


def square(images: np.ndarray) -> np.ndarray:
    """Pad with zeros to a square, as long as the longer side."""
    side = max(images.shape[1:])
    return centre(images, side, side)


def resample(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Images on a grid of `rows x columns` over the same field of view, float32.

    The filter is a triangle as wide as the pixels of the coarser grid (Pillow's antialiased bilinear filter). So nothing
    overshoots, a constant stays constant, and the field of view keeps its ends.
    """
    return _resize(images.astype(np.float32), rows, columns, "BILINEAR")


def resample_labels(labels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Labels on a grid of `rows x columns`: each pixel gets the label of the nearest pixel, uint8."""
    return _resize(labels.astype(np.uint8), rows, columns, "NEAREST")


def _resize(images: np.ndarray, rows: int, columns: int, filter_name: str) -> np.ndarray:
    from PIL import Image  # here, because it is slow to import

    if images.shape[1:] == (rows, columns):
        return images
    resampling = Image.Resampling[filter_name]
    return np.stack([np.asarray(Image.fromarray(image).resize((columns, rows), resampling)) for image in images])


def _overlap(old_side: int, new_side: int) -> tuple[int, int, int]:
    """First pixel to write, first pixel to read, and their number; pixel `old_side // 2` moves to `new_side // 2`."""
    shift = new_side // 2 - old_side // 2
    target, start = max(shift, 0), max(-shift, 0)
    return target, start, min(old_side - start, new_side - target)
