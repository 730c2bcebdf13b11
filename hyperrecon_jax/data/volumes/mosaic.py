"""Siemens mosaics: a DICOM image of one frame that tiles the slices of a volume, in rows from the top left."""

import contextlib
import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from hyperrecon_jax.runtime.errors import InputError


class Mosaic(NamedTuple):
    """How the slices of a mosaic are tiled, and where they lie."""

    num_slices: int
    num_tiles: int  # along each side
    normal: np.ndarray | None  # (3,) unit vector from slice to slice, in mm to the left, back and top; None: not known

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The slices `(n, h, w)` of the image `(rows, columns)`, without empty tiles at the end."""
        k, (rows, columns) = self.num_tiles, image.shape
        tiles = image.reshape(k, rows // k, k, columns // k).swapaxes(1, 2).reshape(k * k, rows // k, columns // k)
        return tiles[: self.num_slices]

    def place(self, data: Any, spacing: tuple[float, float] | None, gap: float) -> list[Any]:
        """The position of each slice, as ImagePositionPatient; None where it is not known.

        Siemens gives the corner of a slice of the size of the mosaic, with the middle of the first slice.
        """
        position, directions = data.get("ImagePositionPatient"), data.get("ImageOrientationPatient")
        if position is None or directions is None or spacing is None:
            return [None] * self.num_slices
        across, down = np.array([float(number) for number in directions]).reshape(2, 3)
        sides = np.array([int(data.Rows), int(data.Columns)]) * (1 - 1 / self.num_tiles) / 2
        first = np.array([float(number) for number in position])
        first = first + sides[0] * spacing[0] * down + sides[1] * spacing[1] * across
        normal = np.cross(across, down)
        if self.normal is not None and normal @ self.normal < 0:
            normal = -normal
        return [first + k * gap * normal for k in range(self.num_slices)]


def find_mosaic(file_name: str, data: Any) -> Mosaic | None:
    """How a file tiles its slices; None if it is no mosaic.

    Raises:
        InputError: if the private fields of Siemens that say it are missing or do not fit the image.
    """
    if "MOSAIC" not in str(data.get("ImageType") or "").upper() or int(data.get("NumberOfFrames") or 1) > 1:
        return None
    count, normal = None, None
    with contextlib.suppress(KeyError, TypeError, ValueError):  # KeyError: the file has no such block
        count = int(data.private_block(0x0019, "SIEMENS MR HEADER")[0x0A].value)
    with contextlib.suppress(Exception):  # there is no list of what a damaged header raises
        with warnings.catch_warnings(action="ignore"):  # nibabel warns that its DICOM readers are for Siemens alone
            from nibabel.nicom import csareader
        header = csareader.get_csa_header(data) or {"tags": {}}
        count = count or int(csareader.get_n_mosaic(header) or 0)
        normal = csareader.get_slice_normal(header)
    num_tiles = math.ceil(math.sqrt(count)) if count and count > 0 else 0
    if not count or not num_tiles or int(data.Rows) % num_tiles or int(data.Columns) % num_tiles:
        reason = f"{count} slices do not fit into it" if num_tiles else "it does not say how many there are"
        raise InputError(
            f"{file_name} must be a DICOM file of separate slices, but it is a Siemens mosaic, one image of {data.Rows} x"
            f" {data.Columns} that tiles them, and {reason}; export it with its private fields, or convert it to NIfTI."
        )
    return Mosaic(count, num_tiles, None if normal is None else np.asarray(normal, np.float64))
