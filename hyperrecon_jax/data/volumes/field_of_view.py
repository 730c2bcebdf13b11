"""The field of view of k-space, and of the image that belongs to it.

Scanners sample the readout more densely than the image needs, so k-space covers a longer field of view than the image.
Which part of it is the image, and how long a pixel is, comes from the first of these that a file has:

1. the ISMRMRD header: the encoded and the reconstructed field of view, in mm;
2. the images of the file (`reconstruction_rss`), with square pixels: rows and columns cut from those of the k-space, or all
   of its columns, if these look clearly more like its image (`scan.match_images`);
3. nothing: k-space with at least 1.5 times as many rows (readout) as columns is oversampled twice, and half of its rows see
   as far as all of its columns. Other k-space has square pixels and no oversampling.
"""

import xml.etree.ElementTree as ElementTree
from typing import Any, NamedTuple

from hyperrecon_jax.runtime.errors import InputError

OVERSAMPLED_RATIO = 1.5  # of rows to columns, for files that do not tell their field of view
MAX_HEADER = 2**20  # characters of an XML header
_MILLIMETRES = (0.1, 10_000.0)  # lengths in a header outside of these are no lengths


class FieldOfView(NamedTuple):
    """Lengths along rows and columns: in mm if `is_metric`, else in a unit that is the same for both."""

    encoded: tuple[float, float]  # of the k-space: height and width of its image
    image: tuple[float, float]  # of the image, the middle part of it
    matrix: tuple[int, int] | None  # rows and columns of the image on the scanner
    is_metric: bool

    @property
    def square(self) -> float:
        """The side of the square that holds all phase encodes (columns) and the rows of the image."""
        return max(self.image[0], self.encoded[1])


def find_field_of_view(shape: tuple[int, int], *, header: str = "", images: tuple[int, int] | None = None) -> FieldOfView:
    """The field of view of k-space.

    Args:
        shape: `(h, w)` of the k-space, readout along the rows.
        header: the ISMRMRD header of the file, "" if it has none.
        images: rows and columns of the file's images, if it has some.
    """
    h, w = shape
    encoding = read_encoding(header)
    if encoding is not None:
        return encoding
    if images is not None:
        return FieldOfView((float(max(h, images[0])), float(max(w, images[1]))), _as_floats(images), images, False)
    if h >= OVERSAMPLED_RATIO * w:
        return FieldOfView((h / (h // 2), 1.0), (1.0, 1.0), None, False)
    return FieldOfView((float(h), float(w)), (float(h), float(w)), None, False)


def read_encoding(header: str) -> FieldOfView | None:
    """The field of view of an ISMRMRD header; None if it has none that is plausible."""
    root = parse_header(header)
    spaces = [None if root is None else root.find(f"encoding/{name}") for name in ("encodedSpace", "reconSpace")]
    encoded, image = (_numbers(space, "fieldOfView_mm") for space in spaces)
    matrix = _numbers(spaces[1], "matrixSize")
    if encoded is None or image is None or matrix is None:
        return None
    low, high = _MILLIMETRES
    if not all(low <= value <= high for value in (*encoded, *image)) or min(matrix) < 1:
        return None
    return FieldOfView(encoded, image, (int(matrix[0]), int(matrix[1])), True)


def parse_header(header: str) -> Any:
    """The root of an ISMRMRD header without its namespaces, an `Element`; None where it is no XML of reasonable size."""
    if not header or len(header) > MAX_HEADER or "<!" in header.replace("<!--", ""):  # no definitions of entities
        return None
    try:
        root = ElementTree.fromstring(header)
    except ElementTree.ParseError:
        return None
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]
    return root


def count_pixels(shape: tuple[int, int], encoded: tuple[float, float], lengths: tuple[float, float]) -> tuple[int, int]:
    """How many rows and columns of the image of k-space cover `lengths`."""
    counts = [max(1, round(side * length / field)) for side, field, length in zip(shape, encoded, lengths, strict=True)]
    return counts[0], counts[1]


def pixel_sides(shape: tuple[int, int], lengths: tuple[float, float]) -> tuple[float, float]:
    """Height and width of the pixels of an image of some lengths."""
    return lengths[0] / shape[0], lengths[1] / shape[1]


def check_cartesian(file_name: str, header: str) -> None:
    """Raises `InputError` if a header says that k-space is not on a Cartesian grid."""
    root = parse_header(header)
    trajectory = "" if root is None else (root.findtext("encoding/trajectory") or "").strip().lower()
    if trajectory not in ("", "cartesian"):
        raise InputError(f"{file_name} must hold Cartesian k-space, but its header says {trajectory[:40]!r}.")


def _numbers(space: Any, name: str) -> tuple[float, float] | None:
    """The numbers x and y of an element of a header: along rows and columns of k-space."""
    try:
        x, y = (float(space.find(name).findtext(axis)) for axis in "xy")
    except (AttributeError, TypeError, ValueError):
        return None
    return x, y


def _as_floats(shape: tuple[int, int]) -> tuple[float, float]:
    return float(shape[0]), float(shape[1])
