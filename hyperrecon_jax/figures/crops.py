"""The part of an image to magnify, and a frame that shows where it is."""

import numpy as np
from matplotlib.patches import Rectangle
from scipy.ndimage import uniform_filter


def busiest_part(image: np.ndarray) -> tuple[slice, slice]:
    """The window with the most edges inside the object, of three eighths of each side."""
    h, w = (max(8, 3 * side // 8) for side in image.shape)
    is_inside = uniform_filter((image > 0.05).astype(float), 5) > 0.99
    edges = np.hypot(*np.gradient(image)) * is_inside
    integral = np.pad(edges.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    window_sums = integral[h:, w:] - integral[:-h, w:] - integral[h:, :-w] + integral[:-h, :-w]
    top, left = np.unravel_index(np.argmax(window_sums), window_sums.shape)
    return slice(int(top), int(top) + h), slice(int(left), int(left) + w)


def frame(part: tuple[slice, slice], color: str = "tab:orange") -> Rectangle:
    """A rectangle around the pixels of a window, in the coordinates of `imshow`."""
    rows, columns = part
    return Rectangle(
        (columns.start - 0.5, rows.start - 0.5),
        columns.stop - columns.start,
        rows.stop - rows.start,
        fill=False,
        edgecolor=color,
        linewidth=1,
    )
