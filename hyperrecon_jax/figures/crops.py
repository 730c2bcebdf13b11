"""Which part of an image to magnify, and the frame that shows where it lies."""

import numpy as np
from matplotlib.patches import Rectangle
from scipy.ndimage import uniform_filter


def busiest_part(image: np.ndarray) -> tuple[slice, slice]:
    """A window of three eighths of the side with the most edges inside the object, where there is something to compare."""
    h, w = (max(8, 3 * side // 8) for side in image.shape)
    edges = np.hypot(*np.gradient(image)) * (uniform_filter((image > 0.05).astype(float), 5) > 0.99)
    sums = np.pad(edges.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    top, left = np.unravel_index(np.argmax(inside), inside.shape)
    return slice(int(top), int(top) + h), slice(int(left), int(left) + w)


def frame(part: tuple[slice, slice], color: str = "tab:orange") -> Rectangle:
    """A frame around the pixels of a window, in the coordinates of `imshow`."""
    rows, columns = part
    return Rectangle(
        (columns.start - 0.5, rows.start - 0.5),
        columns.stop - columns.start,
        rows.stop - rows.start,
        fill=False,
        edgecolor=color,
        linewidth=1,
    )
