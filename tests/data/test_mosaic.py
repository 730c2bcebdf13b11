"""Siemens mosaics: the slices and their places are those that nibabel's reader of mosaics gives."""

import io
import struct
import warnings

import numpy as np
import pydicom
import pytest
from faults.intensity_files import dicom

from hyperrecon_jax.data import volumes
from hyperrecon_jax.data.sources import folder
from hyperrecon_jax.data.sources.base import Settings
from hyperrecon_jax.runtime.errors import InputError

with warnings.catch_warnings(action="ignore"):
    from nibabel.nicom import dicomwrappers

SLICES = np.random.default_rng(0).integers(1, 3000, (7, 16, 24)).astype(np.uint16)
IMAGE = np.zeros((9, 16, 24), np.uint16)
IMAGE[:7] = SLICES
IMAGE = IMAGE.reshape(3, 3, 16, 24).swapaxes(1, 2).reshape(48, 72)
OBLIQUE = [0.96, 0.0, 0.28, 0.0, 1.0, 0.0]
NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])


def csa_header(**tags):
    """A CSA2 header with these tags, each a list of texts."""
    content = b"SV10\4\3\2\1" + struct.pack("<2I", len(tags), 77)
    for name, values in tags.items():
        content += struct.pack(
            "<64si4s3i", name.encode(), len(values), b"US" if name.startswith("Number") else b"FD", 0, len(values), 77
        )
        for value in values:
            text = value.encode() + b"\0"
            content += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + b"\0" * (-len(text) % 4)
    return content


def mosaic(*, count="7", normal=NORMAL, number=None, image=IMAGE, **fields):
    """A file with a CSA header, and the number of slices in a field of its own if `number` is given."""
    fields = {
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
        "ImageOrientationPatient": OBLIQUE,
        "ImagePositionPatient": [-31.0, -20.5, 8.0],
        "PixelSpacing": [2.0, 1.5],
        "SpacingBetweenSlices": 3.5,
        "SliceThickness": 3.0,
    } | fields
    elements = []
    if count is not None:
        header = csa_header(NumberOfImagesInMosaic=[count], SliceNormalVector=[f"{v:.8f}" for v in normal])
        elements = [(0x00290010, "LO", "SIEMENS CSA HEADER"), (0x00291010, "OB", header)]
    if number is not None:
        elements += [(0x00190010, "LO", "SIEMENS MR HEADER"), (0x0019100A, "US", number)]
    return dicom(image, elements=sorted(elements), **fields)


@pytest.mark.parametrize("sign", [1, -1])
def test_slices_and_places_are_those_of_nibabel(sign):
    content = mosaic(normal=sign * NORMAL)
    reference = dicomwrappers.MosaicWrapper(pydicom.dcmread(io.BytesIO(content)))
    values = reference.get_data()  # (rows, columns, slices)
    to_patient = np.diag([-1, -1, 1, 1]) @ reference.affine  # to the right, front and top

    volume = volumes.read("a.dcm", content)
    low, high = volume.scale
    shown = low + volumes.crop(volume, volume.slices) * (high - low)
    assert shown.shape == SLICES.shape
    assert "the 7 slices of a Siemens mosaic" in volume.note
    for index in ((0, 0, 0), (15, 23, 6), (3, 9, 2)):
        row, column, k, _ = np.linalg.solve(volume.affine, to_patient @ [*index, 1]).round(4)
        row, column = row - volume.corner[0], column - volume.corner[1]
        assert shown[int(k), int(row), int(column)] == pytest.approx(values[index])


def test_the_number_of_slices_may_be_in_a_field_of_its_own(tmp_path):
    """And a folder gives each mosaic, such as those of several times, a scale of its own."""
    for k, content in enumerate((mosaic(count=None, number=7), mosaic(number=7, image=IMAGE // 3))):
        (tmp_path / f"{k}.dcm").write_bytes(content)
    settings = Settings(size=24, slices=99, coils=0, acquisition="", whiten=False)
    slices = folder.read(sorted(tmp_path.iterdir()), settings)
    assert slices.image.shape == (14, 24, 24)
    assert min(slices.image[:7].max(), slices.image[7:].max()) > 0.99
    assert slices.notes == ("the 7 slices of a Siemens mosaic",)


def test_without_positions_it_is_cut_all_the_same():
    fields = dict.fromkeys(("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"))
    volume = volumes.read("a.dcm", mosaic(**fields))
    np.testing.assert_allclose(volumes.crop(volume, volume.slices) * volume.scale[1], SLICES, atol=1e-2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (mosaic(count=None), "it does not say how many there are"),
        (mosaic(count="-1"), "it does not say how many there are"),
        (mosaic(count="17"), "17 slices do not fit into it"),
    ],
)
def test_a_mosaic_that_lost_its_private_fields_is_refused(content, reason):
    with pytest.raises(InputError, match=f"^a.dcm must be .* it is a Siemens mosaic, one image of 48 x 72 .*{reason}; "):
        volumes.read("a.dcm", content)
