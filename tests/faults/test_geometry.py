"""Planes, directions, order, spacing and grouping of people's files: one head gives one picture, whatever its file is."""

import gzip
import io
import os
import threading
import types
import warnings
from collections import OrderedDict

import nibabel
import numpy as np
import pydicom
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import ExifTags, Image, ImageOps
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut

from hyperrecon_jax.data import volumes
from hyperrecon_jax.data.sources import folder
from hyperrecon_jax.data.sources.base import Settings
from hyperrecon_jax.data.volumes import geometry
from hyperrecon_jax.explorer.volume_store import OpenVolume, VolumeStore
from hyperrecon_jax.runtime.errors import InputError

RNG = np.random.default_rng(0)
HEAD = RNG.integers(1, 3000, (16, 16, 9)).astype(np.uint16)  # to the right, front, top
HEAD[3, 4, 5] = 3000
SETTINGS = Settings(size=16, slices=200, coils=0, acquisition="", whiten=False)
PLANES = ("axial", "coronal", "sagittal")
AXIS = {"axial": 2, "coronal": 1, "sagittal": 0}  # of HEAD, across the slices of a plane
ROWS_AND_COLUMNS = {  # of DICOM, in mm to the left, back and top
    "axial": ([1, 0, 0], [0, 1, 0]),
    "coronal": ([1, 0, 0], [0, 0, -1]),
    "sagittal": ([0, 1, 0], [0, 0, -1]),
}


def as_radiologists_see(head, plane):
    """The slices of an array that runs to the right, front and top."""
    x, y, z = (slice(None, None, -1),) * 3
    if plane == "axial":  # from foot to head; front at the top, right on the left
        return head[x, y].transpose(2, 1, 0)
    if plane == "coronal":  # from front to back; head at the top, right on the left
        return head[x, y, z].transpose(1, 2, 0)
    return head[:, y, z].transpose(0, 2, 1)  # from left to right; head at the top, front on the left


def nifti(head, affine, codes="RAS", form=nibabel.Nifti1Image):
    """A file with the axes in the order and the directions of `codes`."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    turned = nibabel.orientations.apply_orientation(head, turn)
    return form(turned, affine @ inv_ornt_aff(turn, head.shape))


def spacing(plane, across=5.0, sides=(1.0, 1.0)):
    """The affine of slices of a plane."""
    lengths = list(sides)
    lengths.insert(AXIS[plane], across)
    return np.diag([*lengths, 1.0])


def shown(volume):
    """The slices in the file's units."""
    low, high = volume.scale
    return low + volumes.crop(volume, volume.slices).astype(float) * (high - low)


def assert_shows(content, expected, name="file", **options):
    volume = volumes.read(name, content, **options)
    np.testing.assert_allclose(shown(volume), expected, atol=1e-3)
    return volume


def dicom(pixels, **fields):
    """A file of one slice `(h, w)`, or of frames `(n, h, w)`; a field that is None is left out."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = pydicom.uid.MRImageStorage, pydicom.uid.generate_uid()
    data.Rows, data.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.SeriesInstanceUID, data.PixelSpacing = "1.2.3", [1, 1]
    data.add_new("PixelData", "OW", pixels.astype("<u2").tobytes())
    for key, value in fields.items():
        if value is None:
            data.pop(key, None)
        else:
            setattr(data, key, value)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def place(plane, k, step=5.0):
    """The fields of slice `k` of a plane, counted as radiologists see them."""
    across, down = (np.array(direction) for direction in ROWS_AND_COLUMNS[plane])
    position = np.cross(across, down) * step * k
    return {
        "ImageOrientationPatient": [float(v) for v in (*across, *down)],
        "ImagePositionPatient": [float(v) for v in position],
        "SliceThickness": step,
    }


def item(**fields):
    data = Dataset()
    for key, value in fields.items():
        setattr(data, key, value)
    return data


def frames(slices, places, order):
    """A file with the frames in an order."""
    own = []
    for k in order:
        orientation, position, _ = places[k].values()
        own.append(
            item(
                PlaneOrientationSequence=[item(ImageOrientationPatient=orientation)],
                PlanePositionSequence=[item(ImagePositionPatient=position)],
                PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=5)],
            )
        )
    return dicom(slices[order], PerFrameFunctionalGroupsSequence=own, SOPClassUID=pydicom.uid.EnhancedMRImageStorage)


def save(root, files):
    """Write files into a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read(root, **settings):
    chosen = SETTINGS._replace(**settings)
    ((_, files),) = folder.find(root, chosen).items()
    return folder.read(files, chosen)


def padded(slices):
    """Slices of a series as `folder` gives them: one scale, on 16 x 16 pixels."""
    n, h, w = slices.shape
    result, top, left = np.zeros((n, 16, 16)), 8 - h // 2, 8 - w // 2
    result[:, top : top + h, left : left + w] = slices / slices.max()
    return result


# Planes


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("codes", ["RAS", "LPI", "AIL", "SRP", "PSR"])
@pytest.mark.parametrize("form", [nibabel.Nifti1Image, nibabel.MGHImage])
def test_slices_are_those_that_were_acquired(plane, codes, form):
    file = nifti(HEAD.astype(np.int16), spacing(plane), codes, form)
    canonical = nibabel.as_closest_canonical(file)
    volume = assert_shows(file.to_bytes(), as_radiologists_see(canonical.get_fdata(), plane))
    assert f"{plane} slices along the file's" in volume.note
    for choice in PLANES:
        volume = assert_shows(file.to_bytes(), as_radiologists_see(canonical.get_fdata(), choice), plane=choice)
        # Voxel (3, 4, 5) of the head lies where the file says.
        (position,) = np.argwhere(volume.slices == 1)
        np.testing.assert_allclose(
            volume.affine @ [*position[1:], position[0], 1], spacing(plane) @ [3, 4, 5, 1], atol=1e-4
        )
        height, width = volume.pixel_size
        axes = {"axial": (1, 0), "coronal": (2, 0), "sagittal": (2, 1)}[choice]
        assert (height, width) == tuple(spacing(plane).diagonal()[list(axes)])


@pytest.mark.parametrize(
    ("sides", "shape", "plane"),
    [
        ((1, 1, 1), (64, 64, 64), "axial"),
        ((1.25, 1.25, 1.2), (64, 64, 64), "axial"),  # equal, but for the rounding of a field of view
        ((1.2, 0.94, 0.94), (64, 64, 64), "sagittal"),
        ((1, 4, 1), (64, 7, 64), "coronal"),
        ((0.5, 1, 1), (64, 64, 64), "axial"),
        ((1, 1, 1), (7, 64, 64), "sagittal"),  # axial slices would be 7 pixels wide
        ((1, 9, 5), (1, 64, 64), "sagittal"),  # one slice, whatever its sides
        ((1, 1, 1), (64, 64, 1), "axial"),
    ],
)
def test_the_plane_of_the_finest_axes(sides, shape, plane):
    assert geometry.choose_view(np.diag([*sides, 1.0]), shape, "acquired").plane == plane


def test_views_of_oblique_files_are_those_of_nibabel():
    for _ in range(20):
        affine = nibabel.affines.from_matvec(
            nibabel.eulerangles.euler2mat(*RNG.uniform(-0.5, 0.5, 3))
            @ np.diag(RNG.uniform(0.5, 5, 3) * RNG.choice([-1, 1], 3)),
            RNG.normal(size=3),
        )[:, [*RNG.permutation(3), 3]]
        for plane, codes in (("axial", "PLS"), ("coronal", "ILP"), ("sagittal", "IPR")):
            turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
            view = geometry.choose_view(affine, HEAD.shape, plane)
            np.testing.assert_array_equal(
                geometry.arrange(HEAD, view), nibabel.orientations.apply_orientation(HEAD, turn), plane
            )
            np.testing.assert_allclose(
                geometry.arrange_affine(affine, HEAD.shape, view), affine @ inv_ornt_aff(turn, HEAD.shape)
            )


def test_an_unknown_plane_is_named():
    with pytest.raises(InputError, match="`plane` must be one of axial, coronal, sagittal, acquired, got 'Axial'"):
        volumes.read("x", nifti(HEAD, np.eye(4)).to_bytes(), plane="Axial")
    np.save(stream := io.BytesIO(), np.ones((2, 16, 16)))
    with pytest.raises(InputError, match=r"x\.npy must say where its slices lie, at even steps, to be shown in the axial"):
        volumes.read("x.npy", stream.getvalue(), plane="axial")


# Headers of NIfTI and MGH


def with_fields(file, **fields):
    content = bytearray(file.to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]))
    for key, value in fields.items():
        header[key] = value
    content[:348] = header.binaryblock
    return bytes(content)


def rounded_quaternions(file):
    """A turn by 180 degrees about an axis between x and y, in numbers that are a little too long."""
    return with_fields(file, sform_code=0, qform_code=1, quatern_b=0.70710696, quatern_c=0.70710696)


def test_rounded_quaternions_are_read():
    file = nifti(HEAD, np.eye(4))
    volume = volumes.read("x.nii", rounded_quaternions(file))
    assert volume.space == 1
    np.testing.assert_allclose(volume.affine[:3, :3] @ volume.affine[:3, :3].T, np.eye(3), atol=1e-6)
    exact = nifti(HEAD, np.eye(4))
    exact.header["sform_code"], exact.header["qform_code"] = 0, 1
    exact.header["quatern_b"] = exact.header["quatern_c"] = np.sqrt(0.5)
    exact.header["quatern_b"] = np.nextafter(exact.header["quatern_b"], np.float32(0))
    expected = nibabel.Nifti1Image(HEAD, exact.header.get_qform())
    np.testing.assert_allclose(shown(volume), shown(volumes.read("y", expected.to_bytes())), atol=1e-3)


def test_the_qform_where_the_sform_is_damaged_and_lengths_where_both_are():
    oblique = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([1, 2, 5]), [-3, 8, 9])
    file = nibabel.Nifti1Image(HEAD, oblique)
    file.set_qform(oblique, 3)
    good = volumes.read("x", with_fields(file, sform_code=0))
    for row in ([0, 0, 0, 0], [np.nan, 0, 0, 0]):
        damaged = volumes.read("x", with_fields(file, srow_x=row))
        assert (damaged.space, good.space) == (3, 3)
        np.testing.assert_allclose(damaged.affine, good.affine)
        np.testing.assert_array_equal(damaged.slices, good.slices)
        assert "its sform cannot be inverted" in damaged.note
    unplaced = volumes.read("x", with_fields(file, srow_x=[0, 0, 0, 0], qform_code=0))
    assert (unplaced.space, unplaced.pixel_size) == (0, (2, 1))
    assert "does not say how it lies" in unplaced.note


@pytest.mark.parametrize("sides", [[1, 0, 1, 1], [1, 1, -1, np.nan]])
def test_sides_of_zero_are_one(sides):
    volume = volumes.read("x", with_fields(nifti(HEAD, np.eye(4)), sform_code=0, pixdim=[*sides, 0, 0, 0, 0]))
    assert volume.pixel_size == (1, 1)


@pytest.mark.parametrize("form", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_voxels_do_not_start_inside_of_the_header(form):
    """An offset of 0 stands for the end of the header: its bytes were shown as voxels."""
    content = bytearray(nifti(HEAD, np.eye(4), form=form).to_bytes())
    start, size = (108, 4) if form is nibabel.Nifti1Image else (168, 8)
    content[start : start + size] = bytes(size)
    assert_shows(bytes(content), as_radiologists_see(HEAD, "axial"))


def test_other_numbers_of_dimensions():
    flat = HEAD[:, :, 0]
    assert_shows(
        nibabel.Nifti1Image(flat, np.diag([1, 1, 0.1, 1])).to_bytes(), as_radiologists_see(HEAD[:, :, :1], "axial")
    )
    sheet = nifti(HEAD[:, 2:3], np.eye(4))
    assert_shows(sheet.to_bytes(), as_radiologists_see(HEAD[:, 2:3], "coronal"))
    several = nibabel.Nifti1Image(np.stack([HEAD, HEAD // 2], -1), spacing("coronal"))
    volume = assert_shows(several.to_bytes(), as_radiologists_see(HEAD, "coronal"))
    assert "the first of 2 volumes" in volume.note


def test_mgh_without_directions():
    content = bytearray(nibabel.MGHImage(HEAD.astype(np.int16), np.eye(4)).to_bytes())
    content[28:30] = b"\0\0"  # goodRASFlag
    volume = volumes.read("x.mgh", bytes(content))
    assert volume.space == 0
    assert "does not say how it lies" in volume.note


# DICOM


@pytest.mark.parametrize("plane", PLANES)
def test_one_head_in_every_file(tmp_path, plane):
    """A NIfTI file, a series with shuffled names and without numbers, and frames in a wrong order."""
    expected = as_radiologists_see(HEAD, plane)
    places = [place(plane, k) for k in range(len(expected))]
    order = RNG.permutation(len(expected))
    save(tmp_path / "nifti", {"s/head.nii": nifti(HEAD, spacing(plane)).to_bytes()})
    save(tmp_path / "series", {f"s/{name}": dicom(expected[k], **places[k]) for name, k in enumerate(order)})
    many = frames(expected, places, order)
    save(tmp_path / "frames", {"s/many.dcm": many})
    assert_shows(many, expected)
    other = PLANES[PLANES.index(plane) - 1]
    for choice in ("acquired", plane, other):
        stored = as_radiologists_see(HEAD, plane if choice == "acquired" else choice)
        images = [read(tmp_path / form, plane=choice) for form in ("nifti", "series", "frames")]
        for image in images:
            assert len(image.image) == len(stored)
            np.testing.assert_allclose(image.image, images[0].image, atol=1e-6)
        if choice != other:
            np.testing.assert_allclose(images[0].image, padded(stored), atol=1e-6)
        else:
            assert_shows(many, stored, plane=choice)


def test_flipped_images_are_shown_as_radiologists_see_them():
    image = as_radiologists_see(HEAD, "axial")[0]
    for across, down, stored in (
        ([-1, 0, 0], [0, 1, 0], image[:, ::-1]),
        ([1, 0, 0], [0, -1, 0], image[::-1]),
        ([0, 1, 0], [1, 0, 0], image.T),
    ):
        content = dicom(stored, **(place("axial", 0) | {"ImageOrientationPatient": [*across, *down]}))
        assert_shows(content, image[None])


def test_a_tilted_gantry_and_gaps():
    slices = as_radiologists_see(HEAD, "axial")
    tilted = [place("axial", k) for k in range(9)]
    for k, fields in enumerate(tilted):
        fields["ImagePositionPatient"] = [0, 2.0 * k, 5.0 * k]
    volume = assert_shows(frames(slices, tilted, np.arange(9)), slices)
    assert volume.space == 1
    np.testing.assert_allclose(volume.affine[:3, 2], [0, -2, 5])
    with pytest.raises(InputError, match="at right angles to be shown in the coronal plane, but its slices are sheared"):
        volumes.read("x", frames(slices, tilted, np.arange(9)), plane="coronal")
    gap = [place("axial", k + 3 * (k > 4)) for k in range(9)]
    volume = assert_shows(frames(slices, gap, RNG.permutation(9)), slices)
    assert "its slices lie at uneven steps" in volume.note
    with pytest.raises(InputError, match="must say where its slices lie, at even steps"):
        volumes.read("x", frames(slices, gap, np.arange(9)), plane="coronal")


def test_frames_of_several_times_are_the_first_volume():
    slices = as_radiologists_see(HEAD, "axial")
    places = [place("axial", k) for k in range(9)]
    content = frames(np.concatenate([slices, slices // 2]), places * 2, RNG.permutation(9).tolist() + list(range(9, 18)))
    volume = assert_shows(content, slices)
    assert "the first of 2 volumes" in volume.note


@pytest.mark.parametrize("value", [None, [0, 0]])
def test_pixels_without_a_size(value):
    slices = as_radiologists_see(HEAD, "axial")
    volume = volumes.read("x", dicom(slices[0], PixelSpacing=value, **place("axial", 0)))
    assert (volume.space, volume.pixel_size) == (0, (1, 1))
    volume = volumes.read("x", dicom(slices[0], PixelSpacing=value, PixelAspectRatio=[2, 1]))
    assert volume.pixel_size == (2, 1)


@pytest.mark.parametrize(
    ("tag", "value"),
    [("ImageOrientationPatient", b"1\\0\\0\\0\\x\\0 "), ("ImagePositionPatient", b"0\\0"), ("PixelSpacing", b"wide")],
)
def test_damaged_entries_leave_the_image(tag, value):
    """They are no numbers, or too few."""
    slices = as_radiologists_see(HEAD, "axial")
    data = pydicom.dcmread(io.BytesIO(dicom(slices[0], **place("axial", 0))))
    raw = pydicom.dataelem.RawDataElement(data[tag].tag, "DS", len(value), value, 0, False, True)
    data._dict[data[tag].tag] = raw
    stream = io.BytesIO()
    data.save_as(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = assert_shows(stream.getvalue(), slices[:1])
    assert volume.space == 0


def test_absurd_sides_count_as_squares():
    volume = volumes.read("x", nifti(HEAD.astype(np.int16), np.diag([1, 1e6, 1e6, 1.0])).to_bytes(), plane="axial")
    assert volume.pixel_size == (1, 1)


# Folders


def test_a_mixed_folder(tmp_path):
    """A scan of two interleaved echoes, its localizers, a report, files that are none, a copy, and another series."""
    slices = as_radiologists_see(HEAD, "axial")
    files = {}
    for k in range(9):
        for echo in (1, 2):
            fields = place("axial", k) | {"InstanceNumber": 2 * k + echo, "EchoTime": 10 * echo}
            files[f"s/{17 * k % 9}{echo}"] = dicom(slices[k] // echo, **fields)
    for plane in PLANES:
        files[f"s/localizer_{plane}"] = dicom(as_radiologists_see(HEAD, plane)[4], **place(plane, 4))
    files["s/other"] = dicom(slices[0], SeriesInstanceUID="1.2.4", **place("axial", 0))
    report = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "Modality": "SR"}
    files["s/report.dcm"] = dicom(slices[0], **report)
    files["s/state.dcm"] = dicom(slices[0], SOPClassUID=pydicom.uid.RawDataStorage, Rows=None, PixelData=None)
    files["s/copy/00.dcm"] = files["s/01"]
    files["s/notes.dcm"], files["s/nothing.nii.gz"] = b"text", b""
    save(tmp_path, files)
    result = read(tmp_path)
    expected = [slices, slices // 2] + [as_radiologists_see(HEAD, plane)[4:5] for plane in PLANES] + [slices[:1]]
    assert len(result.image) == 9 + 9 + 3 + 1
    images = {image.tobytes() for image in np.rint(result.image * 1e4).astype(int)}
    assert images == {image.tobytes() for part in expected for image in np.rint(padded(part) * 1e4).astype(int)}
    np.testing.assert_allclose(result.image[:9], padded(slices), atol=1e-6)
    assert result.skipped == {
        "Basic Text SR (DICOM)": 1,
        "Raw Data (DICOM)": 1,
        "a copy of another file": 1,
        "a DICOM file without an image": 1,
        "an empty file": 1,
    }
    cut = read(tmp_path, plane="sagittal")
    assert len(cut.image) == 16 + 16 + 1
    assert cut.skipped["cannot be cut in the sagittal plane"] == 3


def test_times_that_nothing_but_their_order_tells(tmp_path):
    slices = as_radiologists_see(HEAD, "axial")
    files = {f"s/{9 * t + k}": dicom(slices[k] // (t + 1), **place("axial", k)) for t in range(3) for k in range(9)}
    save(tmp_path, files)
    np.testing.assert_allclose(
        read(tmp_path).image, np.concatenate([padded(slices // (t + 1)) for t in range(3)]), atol=1e-6
    )


def test_a_damaged_image_is_no_report(tmp_path):
    slices = as_radiologists_see(HEAD, "axial")
    save(tmp_path, {"s/1": dicom(slices[0]), "s/2": dicom(slices[1])[:-9]})
    with pytest.raises(InputError, match="s/2 must be a whole DICOM file"):
        read(tmp_path)
    save(tmp_path, {"s/2": dicom(slices[1], Rows=None)})
    with pytest.raises(InputError, match="s/2 must be a DICOM file with an image, but it lacks Rows"):
        read(tmp_path)


def test_nothing_but_reports(tmp_path):
    report = dicom(HEAD[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    save(tmp_path, {"s/1": report, "s/2": report})
    with pytest.raises(InputError, match=r"beside it must hold images, but 2 were skipped \(Basic Text SR \(DICOM\)\)\."):
        read(tmp_path)


def test_without_positions_numbers_count_even_if_one_is_no_number(tmp_path):
    files = {f"s/{8 - k}": dicom(HEAD[:, :, k], SliceLocation=k, InstanceNumber=None if k == 3 else 1) for k in range(9)}
    save(tmp_path, files)
    np.testing.assert_allclose(read(tmp_path).image, padded(HEAD.transpose(2, 0, 1)), atol=1e-6)


def test_patterns_and_label_maps(tmp_path):
    labels = nifti((HEAD > 1500).astype(np.uint8), spacing("axial")).to_bytes()
    image = nifti(HEAD, spacing("axial")).to_bytes()
    save(tmp_path, {"anna/x_t1.nii": image, "anna/x_seg.nii": labels, "bert/deep/x_t1.nii": image, "x_seg.nii": labels})

    def select(**patterns):
        subjects = folder.find(tmp_path, SETTINGS._replace(**patterns))
        return [str(path.relative_to(tmp_path)) for files in subjects.values() for path in files]

    scans = ["anna/x_t1.nii", "bert/deep/x_t1.nii"]
    assert select(include=("*_t1*",)) == select(exclude=("*_seg.nii",)) == select(include=("x_t1.nii",)) == scans
    assert select(include=("anna/*", "bert/*"), exclude=("*seg*",)) == scans
    assert select(include=("anna/*",)) == ["anna/x_seg.nii", "anna/x_t1.nii"]
    assert folder.count_excluded(tmp_path, SETTINGS._replace(exclude=("*_seg.nii",))) == 2
    assert folder.count_excluded(tmp_path, SETTINGS) == 0
    with pytest.raises(InputError, match="and that the patterns of `include` and `exclude` leave"):
        select(include=("*_t2*",))
    subjects = folder.find(tmp_path, SETTINGS)
    axial = "axial slices along the file's third axis"
    assert folder.read(subjects["anna"], SETTINGS).notes == (
        axial,
        "x_seg.nii may be a label map; --exclude leaves such files out",
    )
    assert folder.read(subjects["bert"], SETTINGS).notes == (axial,)


def test_many_labels_in_regions_are_labels_and_a_dark_picture_is_none(tmp_path):
    regions = np.kron(RNG.permutation(36).reshape(6, 6, 1), np.ones((6, 6, 9), int)).astype(np.int16)
    save(tmp_path / "regions", {"a.nii": nibabel.Nifti1Image(regions, spacing("axial")).to_bytes()})
    assert "may be a label map" in read(tmp_path / "regions").notes[-1]
    save(tmp_path / "dark", {"a.nii": nibabel.Nifti1Image(HEAD % 40, spacing("axial")).to_bytes()})
    assert "may be a label map" not in read(tmp_path / "dark").notes[-1]
    for k in range(9):  # the first and the last slices of a scan have few values
        pixels = (HEAD[:, :, k] % [2, 9, 99, 199, 256, 199, 99, 9, 2][k]).astype(np.uint8)
        Image.fromarray(pixels).save(stream := io.BytesIO(), "PNG")
        save(tmp_path / "pictures", {f"s/{k}.png": stream.getvalue()})
    assert not read(tmp_path / "pictures").notes


def test_links_are_followed_and_loops_are_not(tmp_path):
    image = nifti(HEAD, spacing("axial")).to_bytes()
    save(tmp_path / "elsewhere", {"anna/a.nii": image})
    save(tmp_path / "root", {"bert/b.nii": image})
    os.symlink(tmp_path / "elsewhere/anna", tmp_path / "root/anna")
    os.symlink(tmp_path / "root", tmp_path / "root/loop")
    os.symlink("..", tmp_path / "root/bert/up")
    os.symlink(".", tmp_path / "root/bert/self")
    os.symlink("circle", tmp_path / "root/circle")
    os.symlink("circle", tmp_path / "root/bert/circle")
    subjects = folder.find(tmp_path / "root", SETTINGS)
    assert {name: len(files) for name, files in subjects.items()} == {"anna": 1, "bert": 1}
    os.symlink(tmp_path / "elsewhere/anna", tmp_path / "root/bert/anna")  # a person in two splits
    with pytest.raises(InputError, match="must hold each subject once, but anna and bert lead to the same"):
        folder.find(tmp_path / "root", SETTINGS)


# Pixels


@pytest.mark.parametrize("form", ["nifti", "dicom"])
def test_pixels_that_are_no_squares(tmp_path, form):
    """A disc of 40 mm on pixels of 1 x 2 mm."""
    y, x = np.mgrid[:24, :48]
    disc = (np.hypot((y - 11.5) * 2, x - 23.5) < 20) * np.uint16(900)
    if form == "nifti":
        head = np.stack([disc[::-1, ::-1].T] * 3, -1)
        content = nibabel.Nifti1Image(head, np.diag([1.0, 2, 5, 1])).to_bytes()
    else:
        content = dicom(disc, **place("axial", 0) | {"PixelSpacing": [2, 1]})
    volume = volumes.read("x", content)
    assert volume.pixel_size == (2, 1)
    assert "pixels are 2 times as high as wide" in volume.note
    pixels = volumes.png(volume.slices[0], window=1, level=0.5, text={}, pixel_size=volume.pixel_size)
    save(tmp_path, {"x.dcm" if form == "dicom" else "x.nii": content})
    for image in (np.asarray(Image.open(io.BytesIO(pixels))) / 255, read(tmp_path, size=48).image[0]):
        assert image.shape == (48, 48)
        height, width = (image > 0.5).any(1).sum(), (image > 0.5).any(0).sum()
        assert abs(height - 40) <= 1
        assert abs(width - 40) <= 1
    with pytest.raises(InputError, match="`pixel_size` must be two finite numbers above 0"):
        volumes.png(volume.slices[0], window=1, level=0.5, text={}, pixel_size=(0, 1))


def test_pictures_whose_dots_are_no_squares():
    stream = io.BytesIO()
    Image.fromarray(HEAD[:, :, 0].astype(np.uint8)).save(stream, "PNG", dpi=(200, 100))
    np.testing.assert_allclose(volumes.read("x.png", stream.getvalue()).pixel_size, (2, 1), rtol=1e-3)
    Image.fromarray(HEAD[:, :, 0].astype(np.uint8)).save(stream := io.BytesIO(), "PNG", dpi=(72, 72))
    assert volumes.read("x.png", stream.getvalue()).affine is None


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(form, orientation):
    picture = Image.fromarray(np.add.outer(np.arange(16), 9 * np.arange(24)).astype(np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stream = io.BytesIO()
    options = {"tiffinfo": {ExifTags.Base.Orientation: orientation}} if form == "TIFF" else {"exif": exif}
    picture.save(stream, form, **options)
    with Image.open(io.BytesIO(stream.getvalue())) as file:
        expected = np.asarray(ImageOps.exif_transpose(file), float)
    assert_shows(stream.getvalue(), expected[None])
    assert expected.shape == ((16, 24) if orientation < 5 else (24, 16))


# Files out


def test_dicom_out_lies_where_the_file_does():
    oblique = nibabel.affines.from_matvec(
        nibabel.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([5, 0.8, 0.9]), [-3, 8, 9]
    )
    volume = volumes.read("x", nibabel.Nifti1Image(HEAD.astype(np.float32) - 100, oblique).to_bytes())
    contents = volumes.dicom(volume, None, volume.slices, {"lambda": 0.3, "run": "λ"})
    files = [pydicom.dcmread(io.BytesIO(content)) for content in contents]
    assert len(files) == 16
    for k, file in enumerate(files):
        values = apply_modality_lut(file.pixel_array, file)
        np.testing.assert_allclose(values, shown(volume)[k], atol=3100 / 65535)
        (row, column), (top, left) = (3, 4), volume.corner
        across, down = np.array(file.ImageOrientationPatient, float).reshape(2, 3)
        spacing_y, spacing_x = map(float, file.PixelSpacing)
        position = np.array(file.ImagePositionPatient, float) + column * spacing_x * across + row * spacing_y * down
        expected = volume.affine @ [row + top, column + left, k, 1]
        np.testing.assert_allclose(position * [-1, -1, 1], expected[:3], atol=1e-4)
        assert float(file.SpacingBetweenSlices) == pytest.approx(5)
        assert (list(file.ImageType), file.PhotometricInterpretation) == (["DERIVED", "SECONDARY", "OTHER"], "MONOCHROME2")
        assert (file.InstanceNumber, file.SOPClassUID) == (k + 1, pydicom.uid.MRImageStorage)
        assert file.ImageComments == '{"lambda": 0.3, "run": "\\u03bb"}'
    assert len({file.SOPInstanceUID for file in files}) == 16
    assert len({file.SeriesInstanceUID for file in files}) == 1
    (single,) = volumes.dicom(volume, 4, volume.slices[4], {})
    other = pydicom.dcmread(io.BytesIO(single))
    assert other.ImagePositionPatient == files[4].ImagePositionPatient
    assert other.SeriesInstanceUID != files[4].SeriesInstanceUID
    back = volumes.read("x", single)
    np.testing.assert_allclose(shown(back), shown(volume)[4:5], atol=3100 / 65535)
    exported = nibabel.Nifti1Image.from_bytes(gzip.decompress(volumes.nifti(volume, 4, volume.slices[4], {})))
    (h, w), (top, left) = back.size, back.corner
    np.testing.assert_allclose(
        exported.affine @ [h - 1, w - 1, 0, 1], back.affine @ [top + h - 1, left + w - 1, 0, 1], atol=1e-4
    )


def test_dicom_out_stays_with_its_patient():
    fields = {"PatientName": "Doe^Jane", "PatientID": "7", "StudyInstanceUID": "1.2.9", "FrameOfReferenceUID": "1.2.8"}
    fields |= {"PatientBirthDate": "19900101", "Modality": "CT", "PhotometricInterpretation": "MONOCHROME1"}
    fields |= {"PatientSex": "F", "StudyDate": "20200102", "AccessionNumber": "A1", "StudyID": "5"}
    left_out = {"InstitutionName": "Clinic", "OperatorsName": "Roe^Max", "SeriesDescription": "t1"}
    volume = volumes.read("x", dicom(HEAD[:, :, 0], **fields, **left_out, **place("axial", 3)))
    (content,) = volumes.dicom(volume, 0, volume.slices[0], {})
    file = pydicom.dcmread(io.BytesIO(content))
    assert {key: str(file[key].value) for key in fields} == fields
    assert file.SeriesInstanceUID != "1.2.3"
    assert list(file.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert all(str(file.get(key, "")) != value for key, value in left_out.items())
    assert file.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    np.testing.assert_allclose(apply_modality_lut(file.pixel_array, file), HEAD[:, :, 0], atol=0.1)
    np.testing.assert_allclose(volumes.read("y", content).slices, volume.slices, atol=1e-4)


def test_dicom_out_without_a_place_and_with_too_many_words():
    stream = io.BytesIO()
    np.save(stream, HEAD[:, :, 0] * 1e-9)
    volume = volumes.read("x.npy", stream.getvalue())
    (content,) = volumes.dicom(volume, 0, volume.slices[0], {})
    file = pydicom.dcmread(io.BytesIO(content))
    assert file.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert "ImagePositionPatient" not in file
    np.testing.assert_allclose(apply_modality_lut(file.pixel_array, file), HEAD[:, :, 0] * 1e-9, atol=1e-10)
    with pytest.raises(InputError, match="`text` must take at most 10240 characters as JSON, got 10252"):
        volumes.dicom(volume, 0, volume.slices[0], {"a" * 10: "b" * 10234})
    with pytest.raises(InputError, match="`index` must be None or a whole number from 0 to 0, got 1"):
        volumes.dicom(volume, 1, volume.slices[0], {})


# Several files on the page


@pytest.fixture
def store():
    """The volumes of a page, without a run: files are opened, and nothing is measured."""
    store = VolumeStore.__new__(VolumeStore)
    store._lock, store._volumes, store._multiple = threading.RLock(), OrderedDict(), 1
    store._opener = types.SimpleNamespace(
        check_kind=lambda kind: None,
        open=lambda name, file: OpenVolume(name, file.note, file, None, True, 0),
    )
    return store


@pytest.mark.parametrize("plane", ["acquired", "coronal"])
def test_a_series_on_the_page_is_one_volume_with_one_scale(store, plane):
    slices = as_radiologists_see(HEAD, "axial")
    files = [(f"scan/IM{k}", dicom(slices[k], **place("axial", k))) for k in RNG.permutation(9)]
    files += [("scan/report", dicom(slices[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")), ("scan/.DS_Store", b"?")]
    (volume,) = store.add_series(files, plane)
    opened = store.get(volume)
    assert opened.name in {f"IM{k} and 8 more" for k in range(9)}
    assert opened.note.endswith("Files skipped: 1 (Basic Text SR (DICOM)), 1 (no image).")
    np.testing.assert_allclose(
        shown(opened.file), as_radiologists_see(HEAD, "axial" if plane == "acquired" else plane), atol=1e-3
    )
    assert opened.file.space == 1
    sizes = {"acquired": (1, 1), "coronal": (5, 1)}
    assert opened.file.pixel_size == sizes[plane]


def test_other_files_at_once_on_the_page(store):
    slices = as_radiologists_see(HEAD, "axial").astype(np.uint8)
    pictures = []
    for k in range(9):
        Image.fromarray(slices[k]).save(stream := io.BytesIO(), "PNG")
        pictures.append((f"{k}.png", stream.getvalue()))
    scan = nifti(HEAD, spacing("sagittal")).to_bytes()
    first, second = store.add_series([*pictures[::-1], ("scan.nii", scan)])
    assert {store.get(first).name, store.get(second).name} == {"scan.nii", "0.png and 8 more"}
    volume = next(store.get(key) for key in (first, second) if "png" in store.get(key).name)
    np.testing.assert_allclose(shown(volume.file), slices, atol=1e-3)
    with pytest.raises(InputError, match="The 2 files must hold images, but none does"):
        store.add_series([("a.txt", b"text"), ("b", b"text")])
    Image.fromarray(slices[0, 1:]).save(stream := io.BytesIO(), "PNG")
    with pytest.raises(InputError, match=r"0\.png and its series must have slices of one size, got \(16, 16\) and"):
        store.add_series([pictures[0], ("1.png", stream.getvalue())])
    with pytest.raises(InputError, match=r"2\.png must be a whole PNG"):
        store.add_series([pictures[0], ("2.png", pictures[1][1][:60])])
