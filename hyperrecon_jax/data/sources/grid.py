"""From the pixels of a scan to the grid of the training images: cut or padded around the centre, then resampled.

NumPy and Pillow; images are `(n, h, w)`. Pixels are squares: what a file says of unequal spacing is for its reader.
"""

import numpy as np
from PIL import Image


def centre(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The middle `rows x columns` pixels; where there are fewer, zeros around them.

    Pixel `h // 2` comes to lie at `rows // 2`, and so for columns: the convention of the centred Fourier transform, so that
    the middle of k-space stays the middle, too.
    """
    n, h, w = images.shape
    out = np.zeros((n, rows, columns), images.dtype)
    (to_row, from_row, height), (to_column, from_column, width) = _overlap(h, rows), _overlap(w, columns)
    out[:, to_row : to_row + height, to_column : to_column + width] = images[
        :, from_row : from_row + height, from_column : from_column + width
    ]
    return out


def square(images: np.ndarray) -> np.ndarray:
    """Padded with zeros to the longer of both sides."""
    side = max(images.shape[1:])
    return centre(images, side, side)


def resample(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """On a grid of `rows x columns` over the same field of view, float32.

    A triangle as wide as the coarser of both grids (Pillow's antialiased bilinear filter): nothing overshoots, a constant
    stays constant, and the field of view keeps its ends.
    """
    return _resized(images.astype(np.float32), rows, columns, Image.Resampling.BILINEAR)


def resample_labels(labels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The label of the nearest pixel, uint8."""
    return _resized(labels.astype(np.uint8), rows, columns, Image.Resampling.NEAREST)


def _resized(images: np.ndarray, rows: int, columns: int, filter: Image.Resampling) -> np.ndarray:
    if images.shape[1:] == (rows, columns):
        return images
    return np.stack([np.asarray(Image.fromarray(image).resize((columns, rows), filter)) for image in images])


def _overlap(have: int, want: int) -> tuple[int, int, int]:
    """Where to write, where to read, how many, so that `have // 2` comes to `want // 2`."""
    shift = want // 2 - have // 2
    to, start = max(shift, 0), max(-shift, 0)
    return to, start, min(have - start, want - to)
