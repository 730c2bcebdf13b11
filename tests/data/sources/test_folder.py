"""People's own files in a folder: the subjects, the slices of each format, and the message for each mistake."""

import gzip
import io
import os
import zipfile

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import scipy.io
import tifffile
from faults.intensity_files import png16, tiff
from faults.kspace_files import matlab_5
from helper import npy_bytes, npz_bytes
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset

from hyperrecon_jax.data import population, volumes
from hyperrecon_jax.data.sources import folder, series
from hyperrecon_jax.data.sources.base import EMPTY, Settings
from hyperrecon_jax.runtime.errors import InputError

SIZE = 32
SETTINGS = Settings(size=SIZE, slices=100, coils=0, acquisition="", whiten=False)
BRAIN = np.rint(population.synthesize_subject(1, size=SIZE, slices=6).images[..., 0] * 900).astype(
    np.uint16
)  # like the numbers of a scanner
RNG = np.random.default_rng(0)


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def nii(slices, spacing=(1, 1, 1)):
    """The right on the left, as radiologists look at them, and so stored to the left, to the front and to the head."""
    stored = np.stack([image[::-1].T for image in slices], axis=-1)
    return nibabel.Nifti1Image(stored, np.diag([-spacing[0], *spacing[1:], 1.0])).to_bytes()


def mgz(slices):
    stored = np.stack([image[::-1].T for image in slices], axis=-1).astype(np.float32)
    return gzip.compress(nibabel.MGHImage(stored, np.diag([-1.0, 1, 1, 1])).to_bytes())


def h5(slices):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["reconstruction_rss"] = slices.astype(np.float32)
    return stream.getvalue()


def picture(pages, form="PNG"):
    first, *rest = map(Image.fromarray, pages)
    stream = io.BytesIO()
    first.save(stream, form, **(dict(save_all=True, append_images=rest) if rest else {}))
    return stream.getvalue()


def dicom(pixels, **fields):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = pydicom.uid.generate_uid()
    data.Rows, data.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.PixelData = pixels.astype("<u2").tobytes()
    data["PixelData"].VR = "OW"
    for key, value in fields.items():
        setattr(data, key, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def place(height, spacing=(1, 1)):
    """The position of an axial slice, `height` mm towards the head."""
    return dict(
        ImagePositionPatient=[0, 0, height],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=list(spacing),
        SliceThickness=4,
    )


def read(root, settings=SETTINGS):
    ((_, files),) = folder.find(root, settings).items()
    return folder.read(files, settings)


def assert_slices(slices, expected, dropped=0, atol=1e-6):
    assert slices.label is None
    assert slices.coils is None
    assert slices.image.dtype == np.float32
    assert slices.dropped == {EMPTY: dropped}
    np.testing.assert_allclose(slices.image, expected, atol=atol)


# Slices


@pytest.mark.parametrize("subfolder", ["", "subject/", "subject/scan/"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", npy_bytes(BRAIN)),
        ("a.npz", npz_bytes(image=BRAIN)),
        ("a.nii", nii(BRAIN)),
        ("a.nii.gz", gzip.compress(nii(BRAIN))),
        ("a.mgz", mgz(BRAIN)),
        ("a.h5", h5(BRAIN)),
        ("a.tif", picture(BRAIN, "TIFF")),
        ("a.dcm", dicom(BRAIN)),
        ("IM0001", dicom(BRAIN)),
        ("1.2.840", dicom(BRAIN)),
        ("volume", gzip.compress(nii(BRAIN))),
    ],
)
def test_volumes_of_every_format(tmp_path, subfolder, name, content):
    save(tmp_path / f"{subfolder}{name}", content)
    expected = name.split(".")[0] if name.startswith("a.") else name
    assert list(folder.find(tmp_path, SETTINGS)) == ["subject" if subfolder else expected]
    assert_slices(read(tmp_path), BRAIN / BRAIN.max())


def test_a_nifti_file_is_read_as_nibabel_does(tmp_path):
    save(tmp_path / "a.nii", nii(BRAIN, (0.9, 0.9, 4)))
    stored = nibabel.as_closest_canonical(nibabel.load(tmp_path / "a.nii")).get_fdata()
    expected = np.stack([np.rot90(stored[:, :, z])[:, ::-1] for z in range(6)])  # the right on the left
    assert_slices(read(tmp_path), expected / expected.max())


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_series_of_pictures_has_one_scale_and_natural_order(tmp_path, form):
    for k, pixels in enumerate(BRAIN):
        save(tmp_path / f"s/slice{8 + k}.{form.lower()}", picture([pixels], form))
    assert_slices(read(tmp_path), BRAIN / BRAIN.max())


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_colours_become_luminance_under_one_scale(tmp_path, form):
    expected = []
    for k, pixels in enumerate(BRAIN // 4):
        content = picture([np.stack([pixels, pixels // 2, pixels // 3], axis=-1).astype(np.uint8)], form)
        save(tmp_path / f"s/{k}.{form.lower()}", content)
        red, green, blue = np.asarray(Image.open(io.BytesIO(content)), np.float64).transpose(2, 0, 1)
        expected.append(0.299 * red + 0.587 * green + 0.114 * blue)
    assert_slices(read(tmp_path), np.stack(expected) / np.max(expected))


def rescaled(k):
    """A slice with a slope of its own, as PET and some MR have; its number is no help."""
    fields = dict(RescaleSlope=k + 1, RescaleIntercept=-20, InstanceNumber=6 - k, SeriesInstanceUID="1.2.3")
    return dicom(np.rint(BRAIN[k] / (k + 1)), **fields, **place(4.0 * k))


EXPECTED = np.stack([np.rint(BRAIN[k] / (k + 1)) * (k + 1) - 20 for k in range(6)])
EXPECTED = (EXPECTED + 20) / (EXPECTED.max() + 20)  # 0 is not the lowest value, -20 is


def test_a_dicom_series_is_sorted_by_position_and_has_one_scale(tmp_path):
    for k, name in zip(RNG.permutation(6), ["IM1", "IM2", "b/IM3", "IM4", "IM5", "IM6.dcm"], strict=True):
        save(tmp_path / "s" / name, rescaled(int(k)))
    save(tmp_path / "s/DICOMDIR", b"nothing to read")
    assert_slices(read(tmp_path), EXPECTED)


def test_positions_count_along_the_normal(tmp_path):
    """A sagittal series: positions run from the patient's right to the left, against the normal of this orientation."""
    for k, name in enumerate("edacfb"):
        position = dict(ImagePositionPatient=[-4.0 * k, 7, 9], ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
        save(tmp_path / "s" / name, dicom(BRAIN[k], SeriesInstanceUID="1.2", **(place(0) | position)))
    normal = np.cross([0, 1, 0], [0, 0, -1])
    order = np.argsort([normal @ [-4.0 * k, 7, 9] for k in range(6)])
    assert_slices(read(tmp_path), BRAIN[order] / BRAIN.max())


def test_without_positions_the_numbers_count_and_without_them_the_names(tmp_path):
    for k, name in enumerate("edacfb"):
        save(tmp_path / "numbers" / name, dicom(BRAIN[k], SeriesInstanceUID="1.2", InstanceNumber=20 - k))
        save(tmp_path / "names" / name, dicom(BRAIN[k]))
    files = folder.find(tmp_path, SETTINGS)
    assert_slices(folder.read(files["numbers"], SETTINGS), BRAIN[::-1] / BRAIN.max())
    assert_slices(folder.read(files["names"], SETTINGS), BRAIN[np.argsort(list("edacfb"))] / BRAIN.max())


def test_images_of_one_place_are_volumes_in_the_order_of_their_numbers(tmp_path):
    """Twenty times, two places."""
    for k in range(40):
        fields = place(4.0 * (k % 2)) | dict(InstanceNumber=k + 1, SeriesInstanceUID="1.2")
        save(tmp_path / "s" / f"{k * 7 % 40}", dicom(BRAIN[3] + k, **fields))
    expected = np.stack([BRAIN[3] + k for k in range(40)]).reshape(20, 2, SIZE, SIZE)
    expected = expected / expected.max((1, 2, 3), keepdims=True)
    assert_slices(read(tmp_path), expected.reshape(40, SIZE, SIZE))


def test_each_series_has_its_own_scale(tmp_path):
    for k in range(3):
        save(tmp_path / f"s/a{k}", dicom(BRAIN[k], SeriesInstanceUID="1.2", **place(k)))
        save(tmp_path / f"s/b{k}", dicom(BRAIN[k] // 9, SeriesInstanceUID="1.3", **place(k)))
        save(tmp_path / f"s/c{k}.png", picture([BRAIN[k] // 20]))
    save(tmp_path / "s/d.npy", npy_bytes(BRAIN * 1e-9))
    series = [BRAIN[:3], BRAIN[:3] // 9, BRAIN[:3] // 20, BRAIN]
    assert_slices(read(tmp_path), np.concatenate([images / images.max() for images in series]))


def test_dark_is_high_in_monochrome1(tmp_path):
    for k in range(6):
        fields = dict(PhotometricInterpretation="MONOCHROME1", SeriesInstanceUID="1.2", InstanceNumber=k)
        save(tmp_path / f"s/{k}", dicom(BRAIN[k].max() - BRAIN[k] + 50, **fields))
    stored = np.stack([BRAIN[k].max() - BRAIN[k].astype(float) + 50 for k in range(6)])
    slices = read(tmp_path)
    assert_slices(slices, (stored.max() - stored) / (stored.max() - stored.min()))
    position, note = slices.notes
    assert position == "the file does not say where its slices lie"
    assert note.startswith("inverted")


def test_a_series_of_bright_and_dark_files_has_two_scales(tmp_path):
    for k in range(6):
        pixels, kind = (BRAIN[k], "MONOCHROME2") if k % 2 else (4095 - BRAIN[k], "MONOCHROME1")
        save(tmp_path / f"s/{k}", dicom(pixels, PhotometricInterpretation=kind))
    expected = [BRAIN[k::2] / BRAIN[k::2].max() for k in (0, 1)]
    assert_slices(read(tmp_path), np.concatenate(expected))


def test_pictures_of_two_kinds_have_two_scales(tmp_path):
    for k in range(6):
        stream = io.BytesIO()
        pixels, kind = (BRAIN[k], "minisblack") if k % 2 else (4095 - BRAIN[k], "miniswhite")
        tifffile.imwrite(stream, pixels, photometric=kind)
        save(tmp_path / f"s/{k}.tif", stream.getvalue())
    expected = [BRAIN[k::2] / BRAIN[k::2].max() for k in (0, 1)]
    assert_slices(read(tmp_path), np.concatenate(expected))


def test_what_was_done_to_files_is_said_as_for_a_single_file(tmp_path):
    """A note that all files have needs no name; of others, the files are named and counted."""
    times = nibabel.Nifti1Image(np.stack([BRAIN.T, BRAIN.T], axis=-1), np.eye(4)).to_bytes()
    colours = np.stack([BRAIN // 4] * 3, axis=-1).astype(np.uint8)
    save(tmp_path / "one/a.nii", times)
    save(tmp_path / "two/a.nii", times)
    save(tmp_path / "two/b.nii", times)
    save(tmp_path / "two/c.nii", nii(BRAIN))
    for k in range(3):
        save(tmp_path / f"two/{k}.png", picture([colours[k] if k else colours[k, ..., 0]]))
    files = folder.find(tmp_path, SETTINGS)
    axial = "axial slices along the file's third axis"
    assert folder.read(files["one"], SETTINGS).notes == (axial, "the first of 2 volumes")
    assert folder.read(files["two"], SETTINGS).notes == (
        "1.png and 1 more: colours became their luminance",
        f"a.nii and 2 more: {axial}",
        "a.nii and 1 more: the first of 2 volumes",
    )


def test_slices_of_a_series_have_their_own_padding(tmp_path):
    """One series with one scale, in a folder, on the page, and cut in another plane."""
    brain = np.concatenate([BRAIN, BRAIN[1:4]])
    values = (None, 65535, 65000)
    for k in range(9):
        brain[k, 5, 5] = values[k % 3] or 0
    brain[0, 5, 5] = brain[2, 6, 6] = 65535  # a hot pixel, as it is not the padding of that slice
    for k in range(9):
        padding = {} if k % 3 == 0 else dict(PixelPaddingValue=values[k % 3])
        save(tmp_path / f"s/{k}", dicom(brain[k], SeriesInstanceUID="1.2", **(place(4.0 * k) | padding)))
    expected = np.clip(brain / BRAIN.max(), 0, 1)
    expected[1:, 5, 5] = 0
    slices = read(tmp_path)
    assert_slices(slices, expected)
    assert "2 outlying values, up to 65535, became 0 or 1; 6 pixels of padding" in slices.notes[-1]
    groups, _ = series.read(folder.find(tmp_path, SETTINGS)["s"], "coronal")
    (joined,) = groups[0]
    volume = volumes.from_stack("s", joined.stack)
    shown = volumes.crop(volume, volume.slices)  # from front to back, the head at the top
    np.testing.assert_allclose(shown, expected[::-1].transpose(1, 0, 2), atol=1e-6)


@pytest.mark.parametrize("extension", ["png", "tif", "npy", "mat"])
def test_files_of_one_slice_have_a_scale_for_each_type_of_integers(tmp_path, extension):
    """8 bits and 16 bits of one subject; colours count by the bits of their file."""
    eight, deep = np.rint(BRAIN * (255 / BRAIN.max())).astype(np.uint8), BRAIN * np.uint16(65535 // BRAIN.max())
    for k in range(6):
        pixels = eight[k] if k % 2 else deep[k]
        if extension == "npy":
            content = npy_bytes(pixels)
        elif extension == "mat":
            content = matlab_5(image=pixels)
        else:
            if k > 3:
                pixels = np.stack([pixels] * 3, axis=-1)
            content = png16(pixels) if extension == "png" and pixels.dtype == np.uint16 and k > 3 else None
            content = content or (
                picture([pixels]) if extension == "png" else tiff(pixels, photometric="rgb" if k > 3 else "minisblack")
            )
        save(tmp_path / f"s/{k}.{extension}", content)
    slices = read(tmp_path)
    expected = [images / images.max() for images in (BRAIN[::2], BRAIN[1::2])]
    np.testing.assert_allclose(slices.image, np.concatenate(expected), atol=5e-3)


def test_pages_of_two_types_are_refused(tmp_path):
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(BRAIN[2])
        file.write(BRAIN[2].astype(np.uint8))
    save(tmp_path / "a.tif", stream.getvalue())
    with pytest.raises(InputError, match=r"a\.tif must hold pages of one type, got uint16 and uint8"):
        read(tmp_path)


def test_complex_values_become_magnitudes(tmp_path):
    save(tmp_path / "a.npy", npy_bytes(BRAIN * np.exp(1j * RNG.random(BRAIN.shape))))
    assert_slices(read(tmp_path), BRAIN / BRAIN.max())


def test_slices_of_one_value_are_dropped_and_the_rest_is_spread(tmp_path):
    brain = BRAIN.copy()
    brain[0], brain[3] = 0, 7
    save(tmp_path / "a.npy", npy_bytes(brain))
    expected = brain[[1, 2, 4, 5]] / brain.max()
    assert_slices(read(tmp_path), expected, dropped=2)
    assert_slices(read(tmp_path, SETTINGS._replace(slices=2)), expected[[0, 3]], dropped=2)


def test_slices_may_differ_in_size(tmp_path):
    save(tmp_path / "s/1.png", picture([BRAIN[2]]))
    save(tmp_path / "s/2.png", picture([BRAIN[2, 4:-4]]))
    save(tmp_path / "s/3.png", picture([BRAIN[2].repeat(2, axis=0).repeat(2, axis=1)]))
    image = BRAIN[2] / BRAIN[2].max()
    slices = read(tmp_path)
    np.testing.assert_allclose(slices.image[0], image, atol=1e-6)
    np.testing.assert_allclose(slices.image[1], image * np.pad(np.ones((24, 1)), [(4, 4), (0, 0)]), atol=1e-6)
    assert np.corrcoef(slices.image[2].ravel(), image.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("write", [lambda p: dicom(p[0], **place(0, (2, 1))), lambda p: nii(p, (1, 2, 3))])
def test_pixels_that_are_no_squares(tmp_path, write):
    """Every second row, of twice the height."""
    rows = (BRAIN[3:4, ::2].astype(float) + BRAIN[3:4, 1::2]) / 2
    save(tmp_path / "a.dcm", write(np.rint(rows)))
    weights = np.zeros((SIZE, 16))  # linear interpolation at quarters of pixels
    for k in range(SIZE):
        near, far = k // 2, k // 2 + (1 if k % 2 else -1)
        weights[k, near] += 0.75
        weights[k, min(max(far, 0), 15)] += 0.25
    assert_slices(read(tmp_path), weights @ np.rint(rows) / np.rint(rows).max())


# Subjects


def test_subjects_of_a_mixed_folder(tmp_path):
    for name in (
        "sub10.nii.gz",
        "sub2/a10.npy",
        "sub2/a9.npy",
        "sub2/deep/er/x.npy",
        "sub1.npy",
        "IM7",
        "empty/readme.txt",
    ):
        save(tmp_path / name, dicom(BRAIN) if name == "IM7" else npy_bytes(BRAIN))
    for name in (
        "notes.txt",
        "sub2.json",
        "table.csv",
        "README",
        ".hidden.npy",
        ".git/a.npy",
        "sub2/.DS_Store",
        "scans.csv.gz",
    ):
        save(tmp_path / name, gzip.compress(b"text") if name.endswith("gz") else b"text")
    save(tmp_path / "bytes", b"")
    save(tmp_path / "elsewhere/.data/a.npy", npy_bytes(BRAIN))
    os.symlink(tmp_path / "elsewhere/.data", tmp_path / "linked")
    os.symlink(tmp_path / "sub2", tmp_path / "sub2/loop")
    subjects = folder.find(tmp_path, SETTINGS)
    assert {name: [str(file.relative_to(tmp_path)) for file in files] for name, files in subjects.items()} == {
        "IM7": ["IM7"],
        "empty": ["empty/readme.txt"],  # an array, whatever its name
        "linked": ["linked/a.npy"],
        "sub1": ["sub1.npy"],
        "sub2": ["sub2/a9.npy", "sub2/a10.npy", "sub2/deep/er/x.npy"],
        "sub10": ["sub10.nii.gz"],
    }
    assert list(subjects) == ["IM7", "empty", "linked", "sub1", "sub2", "sub10"]


def test_a_name_twice_is_refused(tmp_path):
    save(tmp_path / "anna/a.npy", npy_bytes(BRAIN))
    save(tmp_path / "anna.nii.gz", gzip.compress(nii(BRAIN)))
    with pytest.raises(
        InputError, match=r"must hold each subject once, but anna is in .*anna/a\.npy and in .*anna\.nii\.gz"
    ):
        folder.find(tmp_path, SETTINGS)


def test_links_to_the_same_are_refused(tmp_path):
    save(tmp_path / "anna/a.npy", npy_bytes(BRAIN))
    os.symlink(tmp_path / "anna", tmp_path / "bert")
    with pytest.raises(InputError, match=r"must hold each subject once, but anna and bert lead to the same"):
        folder.find(tmp_path, SETTINGS)


def test_a_dicom_series_without_a_folder_is_refused(tmp_path):
    for k in range(2):
        save(tmp_path / f"IM{k}", dicom(BRAIN[k], StudyInstanceUID="1.2.3"))
    with pytest.raises(InputError, match=r"a sub-folder for each person, but IM0 and IM1 are of one DICOM study"):
        folder.find(tmp_path, SETTINGS)
    save(tmp_path / "IM1", dicom(BRAIN[1], StudyInstanceUID="1.2.4"))
    assert list(folder.find(tmp_path, SETTINGS)) == ["IM0", "IM1"]


def test_nobody(tmp_path):
    with pytest.raises(InputError, match=r"gone must be a folder, but there is none"):
        folder.find(tmp_path / "gone", SETTINGS)
    save(tmp_path / "notes.txt", b"text")
    with pytest.raises(InputError, match=r"notes\.txt must be a folder, but it is a file"):
        folder.find(tmp_path / "notes.txt", SETTINGS)
    with pytest.raises(InputError, match=r"must hold images, or sub-folders of images, but there is none that can be read"):
        folder.find(tmp_path, SETTINGS)


def test_no_kspace(tmp_path):
    save(tmp_path / "a.npy", npy_bytes(BRAIN))
    with pytest.raises(InputError, match=r"a\.npy must hold complex numbers to be k-space, got uint16"):
        read(tmp_path, SETTINGS._replace(coils=8))


# Files that claim to be images


INFINITE = BRAIN.astype(np.float32)
INFINITE[4, 2, 2] = np.inf


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", npy_bytes(BRAIN)[:-9], r"s/x\.npy must be a whole file of \d+ bytes"),
        ("x.nii.gz", gzip.compress(nii(BRAIN))[:-99], r"s/x\.nii\.gz must be a whole NIfTI file"),
        ("x.png", picture([BRAIN[0]])[:99], r"s/x\.png must be a whole PNG, JPEG or TIFF file"),
        ("IM3", dicom(BRAIN)[:-99], r"s/IM3 must be a whole DICOM file"),
        ("x.npy", npy_bytes(INFINITE), r"s/x\.npy must hold finite numbers, but slice 4 has infinity"),
        ("x.npy", npy_bytes(np.array([[[-1e308] * 9 + [1e308] * 9] * 9])), r"s/x\.npy must hold values of finite range"),
        ("x.npy", npy_bytes(BRAIN.reshape(2, 3, SIZE, SIZE)), r"s/x\.npy must have shape"),
        ("x.png", picture([BRAIN[0, :4]]), r"s/x\.png must hold slices of 8 to"),
        ("x.nrrd", b"NRRD0004", r"s/x\.nrrd must be a \.npy, \.npz, PNG"),
        ("x.hdr", nii(BRAIN)[:344] + b"ni1\0", r"s/x\.hdr must be a NIfTI file of one piece"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, message):
    save(tmp_path / "s/good.npy", npy_bytes(BRAIN))
    save(tmp_path / "s" / name, content)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_nothing_to_see(tmp_path):
    save(tmp_path / "s/a.npy", npy_bytes(np.zeros_like(BRAIN)))
    save(tmp_path / "s/b.npy", npy_bytes(np.full_like(BRAIN[0], 3)))
    with pytest.raises(
        InputError, match=r"a\.npy and what is beside it must hold images, but each of 7 slices has one value alone"
    ):
        read(tmp_path)


def test_a_file_that_cannot_be_read_does_not_stop_the_search_but_its_reading(tmp_path):
    save(tmp_path / "good.npy", npy_bytes(BRAIN))
    save(tmp_path / "cut.dcm", b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4")
    os.symlink(tmp_path / "gone", tmp_path / "link.npy")
    os.mkfifo(tmp_path / "pipe.png")
    subjects = folder.find(tmp_path, SETTINGS)
    assert set(subjects) == {"cut", "good", "link", "pipe"}
    for name, message in (
        ("cut", r"cut\.dcm must "),
        ("link", r"link\.npy must be a file that can be read: .*No such file"),
        ("pipe", r"pipe\.png must be a regular file, but it is a pipe or a device"),
    ):
        with pytest.raises(InputError, match=message):
            folder.read(subjects[name], SETTINGS)


def test_documents_beside_images_are_skipped(tmp_path):
    """Documents of office programs are .zip archives, and FSL keeps matrices as text in .mat files."""
    save(tmp_path / "s/a.npy", npy_bytes(BRAIN))
    with zipfile.ZipFile(tmp_path / "s/report.docx", "w") as archive:
        archive.writestr("word/document.xml", "<text/>")
    save(tmp_path / "s/to_atlas.mat", b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    scipy.io.savemat(tmp_path / "s/parameters.mat", {"TR": 2.5})
    result = read(tmp_path)
    assert_slices(result, BRAIN / BRAIN.max())
    assert result.skipped == {"an archive without arrays": 1, "a text file": 1, "a MATLAB file without images": 1}


def test_a_tiff_of_several_planes_in_a_page_is_not_its_first_plane(tmp_path):
    save(tmp_path / "a.tif", tiff(np.stack([BRAIN[0]] * 16), volumetric=True, tile=(16, 16, 16)))
    with pytest.raises(InputError, match=r"a\.tif must hold a page for each slice, got one of 16 planes"):
        read(tmp_path)


def test_a_page_of_the_web_is_no_picture(tmp_path):
    save(tmp_path / "a.jpg", b"<html>not found</html>")
    with pytest.raises(InputError, match=r"a\.jpg must be a whole PNG, .* cannot be read: cannot identify image file\.$"):
        read(tmp_path)
