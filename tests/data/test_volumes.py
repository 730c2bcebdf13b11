"""People's own files: the slices of each format, the positions of exports, and the message for each damaged file."""

import gzip
import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset

from hyperrecon_jax.data import volumes
from hyperrecon_jax.runtime.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.random((3, 16, 24)) * 500 + 20
ODD = RNG.random((2, 13, 10))
OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.3, -0.2, 0.4) @ np.diag([1.5, 0.9, 4.0]), [-30.0, 12.0, 55.0]
)


def saved(array, save=np.save):
    stream = io.BytesIO()
    save(stream, array)
    return stream.getvalue()


def nii(array, affine=OBLIQUE, *, form=nibabel.Nifti1Image, zipped=False, **header):
    image = form(array, affine)
    for key, value in header.items():
        image.header[key] = value
    content = image.to_bytes()
    return gzip.compress(content) if zipped else content


def picture(pages, form, **options):
    first, *rest = [Image.fromarray(page) if isinstance(page, np.ndarray) else page for page in pages]
    stream = io.BytesIO()
    first.save(stream, form, **(dict(save_all=True, append_images=rest) if rest else {}), **options)
    return stream.getvalue()


def dicom(pixels, *, syntax=pydicom.uid.ExplicitVRLittleEndian, encapsulated=None, **fields):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    frames = pixels.shape[0] if pixels.ndim == 3 else None
    data.Rows, data.Columns = pixels.shape[-2:] if fields.get("SamplesPerPixel", 1) == 1 else pixels.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    if frames and fields.get("SamplesPerPixel", 1) == 1:
        data.NumberOfFrames = frames
    data.PixelData = pydicom.encaps.encapsulate(encapsulated) if encapsulated else pixels.tobytes()
    data["PixelData"].VR = "OB" if encapsulated or pixels.itemsize == 1 else "OW"
    for key, value in fields.items():
        if value is None:
            del data[key]
        else:
            setattr(data, key, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def hdf5(attrs=(), **datasets):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for key, value in datasets.items():
            file[key] = value
        file.attrs.update(attrs)
    return stream.getvalue()


def fft(images):
    """As fastMRI: image and k-space centered."""
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))


def file_values(volume):
    """Slices in the units of the file, without the padding."""
    low, high = volume.scale
    return low + volumes.crop(volume, volume.slices).astype(np.float64) * (high - low)


def assert_reads(content, expected, name="file", **tolerance):
    volume = volumes.read(name, content)
    assert volume.kind == "image"
    assert volume.slices.dtype == np.float32
    assert volume.slices.min() >= 0
    assert volume.slices.max() <= 1 if volume.scale[0] > volume.scale[1] else volume.slices.max() == 1
    np.testing.assert_allclose(
        file_values(volume), expected, **({"rtol": 1e-6, "atol": 1e-6 * np.abs(expected).max()} | tolerance)
    )
    return volume


# Arrays


@pytest.mark.parametrize("shape", [(3, 16, 24), (3, 16, 24, 1), (3, 1, 16, 24)])
@pytest.mark.parametrize("dtype", [np.uint16, ">f4", np.float64, np.int64])
def test_arrays(shape, dtype):
    stored = IMAGES.astype(dtype)
    for order in "CF":
        volume = assert_reads(saved(np.asarray(stored.reshape(shape), order=order)), stored.astype(float))
    assert volume.scale == (0, stored.max())
    assert (volume.affine, volume.size, volume.corner, volume.space) == (None, (16, 24), (0, 0), 0)
    assert volume.note == f"3 slices of 16 x 24; scaled by its maximum {stored.max():g}."


def test_one_image_negative_boolean_and_complex_values():
    single = assert_reads(saved(IMAGES[0]), IMAGES[:1])
    assert single.slices.shape == (1, 16, 24)
    shifted = assert_reads(saved(IMAGES - 100), IMAGES - 100)
    low, high = IMAGES.min() - 100, IMAGES.max() - 100
    assert shifted.scale == (low, high)
    assert shifted.note.endswith(f"shifted and scaled so that {low:g} became 0 and {high:g}, the largest value, 1.")
    assert_reads(saved(IMAGES > 200), (IMAGES > 200).astype(float))
    turned = assert_reads(saved(IMAGES * np.exp(1j * IMAGES)), IMAGES)
    assert "magnitudes" in turned.note
    assert_reads(saved(IMAGES * 1e300), IMAGES * 1e300)
    untouched = volumes.read("x", saved(IMAGES / IMAGES.max()))
    assert untouched.scale == (0, 1)


def test_sides_stay_as_they_are_unless_a_multiple_is_asked_for():
    """The network mirrors borders itself; super-resolution needs multiples of its factor."""
    volume = assert_reads(saved(ODD), ODD)
    assert (volume.slices.shape, volume.size, volume.corner) == ((2, 13, 10), (13, 10), (0, 0))
    assert "padded" not in volume.note
    volume = volumes.read("x", saved(ODD), multiple=8)
    assert (volume.slices.shape, volume.size, volume.corner) == ((2, 16, 16), (13, 10), (1, 3))
    np.testing.assert_allclose(file_values(volume), ODD, rtol=1e-6, atol=1e-6)
    assert np.count_nonzero(volume.slices) == ODD.size
    np.testing.assert_array_equal(volume.slices[:, 1:14, 3:13], volumes.crop(volume, volume.slices))
    assert volume.note.endswith("padded with zeros to 16 x 16.")
    with pytest.raises(InputError, match=r"`image` must have shape \(\*b, h, w\) with h, w = \(16, 16\), got \(13, 10\)"):
        volumes.crop(volume, ODD[0])


def test_archives():
    assert_reads(saved({"anything": IMAGES}, lambda stream, arrays: np.savez_compressed(stream, **arrays)), IMAGES)
    content = volumes.npz(IMAGES.astype(np.float32), {"lambda": [0.5, 1], "run": "é"})
    assert_reads(content, IMAGES)
    with np.load(io.BytesIO(content)) as file:
        assert json.loads(str(file["metadata"])) == {"lambda": [0.5, 1], "run": "é"}
        np.testing.assert_array_equal(file["image"], IMAGES.astype(np.float32))
    assert volumes.npz(IMAGES, {}) == volumes.npz(IMAGES, {})
    with pytest.raises(InputError, match="`metadata` must be what JSON can hold"):
        volumes.npz(IMAGES, {"loss": float("nan")})
    with pytest.raises(InputError, match="`images` must be an array of numbers, got <U1"):
        volumes.npz(np.array("x"), {})


# Pictures


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_pictures(form, dtype):
    stored = (ODD * np.iinfo(dtype).max).astype(dtype)
    volume = assert_reads(picture(stored[:1], form), stored[:1].astype(float))
    assert "luminance" not in volume.note


def test_pages_floats_and_big_endian():
    stack = (IMAGES * 60).astype(np.uint16)
    assert_reads(picture(stack, "TIFF"), stack.astype(float))
    assert_reads(picture(IMAGES.astype(np.float32), "TIFF"), IMAGES)
    big = Image.frombytes("I;16B", (24, 16), stack[0].astype(">u2").tobytes())
    assert_reads(picture([big], "TIFF"), stack[:1].astype(float))


def test_colours_become_luminance():
    colours = RNG.integers(0, 256, (16, 24, 3), np.uint8)
    expected = (colours @ [0.299, 0.587, 0.114])[None]
    assert "luminance" in assert_reads(picture([colours], "PNG"), expected).note
    alpha = np.concatenate([colours, colours[..., :1]], -1)
    assert_reads(picture([alpha], "PNG"), expected)
    few = Image.fromarray(colours // 64 * 64).quantize(64)
    assert_reads(picture([few], "PNG"), (np.asarray(few.convert("RGB")) @ [0.299, 0.587, 0.114])[None])
    gray = Image.merge("LA", [Image.fromarray(colours[..., k]) for k in (0, 1)])
    assert_reads(picture([gray], "PNG"), colours[None, ..., 0].astype(float))
    smooth = np.add.outer(np.arange(16), np.arange(24)).astype(np.uint8) * 6
    assert_reads(picture([smooth], "JPEG", quality=100), smooth[None].astype(float), atol=2)


def test_png_is_windowed_and_labelled():
    image = np.array([[0.0, 0.2, 0.3], [0.45, 0.7, 2.0]])
    content = volumes.png(image, window=0.5, level=0.45, text={"lambda": "0.3", "Title": "é", "run": "λ"})
    with Image.open(io.BytesIO(content)) as result:
        assert result.mode == "L"
        assert result.text == {"lambda": "0.3", "Title": "é", "run": "λ"}
        np.testing.assert_array_equal(np.asarray(result), [[0, 0, 51], [128, 255, 255]])
    assert b"tEXtlambda\x000.3" in content
    options = {"window": 1.0, "level": 0.5, "text": {}}
    for image_, wrong, message in (
        (image[0], {}, r"`image` must have shape \(h, w\), got \(3,\)"),
        (image + 1j, {}, "`image` must hold real numbers, got complex128"),
        (image * np.nan, {}, "`image` must hold finite numbers"),
        (image, {"window": 0.0}, "`window` must be a finite number above 0, got 0.0"),
        (image, {"window": np.nan}, "`window` must be a finite number above 0, got nan"),
        (image, {"level": np.inf}, "`level` must be a finite number, got inf"),
        (image, {"text": {"λ": "1"}}, "`text` must have keys of 1 to 79 printable Latin-1 characters, got 'λ'"),
        (image, {"text": {"a": 1}}, r"`text\['a'\]` must be a string"),
    ):
        with pytest.raises(InputError, match=message):
            volumes.png(image_, **(options | wrong))


# NIfTI and MGH


def axial(array):
    """What is shown of an array whose axes run to the right, front and top."""
    return array[::-1, ::-1].transpose(2, 1, 0)


BRAIN = RNG.random((12, 9, 10)).astype(np.float32) * 800  # right, front, top


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("form", [nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.MGHImage])
def test_volumes_are_shown_front_at_the_top_and_right_on_the_left(form, zipped):
    volume = assert_reads(nii(BRAIN, form=form, zipped=zipped), axial(BRAIN))
    assert (volume.slices.shape, volume.size, volume.corner) == ((10, 9, 12), (9, 12), (0, 0))
    # right, front and top of the file's last voxel: first row, first column of the last slice
    np.testing.assert_allclose(volume.affine @ [0, 0, 9, 1], OBLIQUE @ [11, 8, 9, 1], atol=1e-4)
    assert volume.note.startswith("10 slices of 9 x 12; axial slices along the file's third axis; scaled by its max")


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LAS", "AIL", "SPR", "PSR", "IRA"])
def test_the_order_of_axes_in_the_file_does_not_matter(codes):
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    straight = volumes.read("a.nii", nii(BRAIN))
    content = nii(apply_orientation(BRAIN, turn), OBLIQUE @ inv_ornt_aff(turn, BRAIN.shape))
    turned = volumes.read("b.nii", content)
    np.testing.assert_array_equal(turned.slices, straight.slices)
    np.testing.assert_allclose(turned.affine, straight.affine, atol=1e-4)
    axis = ("first", "second", "third")[[c in "SI" for c in codes].index(True)]
    assert f"axial slices along the file's {axis} axis" in turned.note


@pytest.mark.parametrize("codes", ["RAS", "PIL"])
def test_an_exported_slice_lies_where_it_came_from(codes):
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    stored, affine = apply_orientation(BRAIN, turn) - 50, OBLIQUE @ inv_ornt_aff(turn, BRAIN.shape)
    volume = volumes.read("a.nii", nii(stored, affine), multiple=8)
    content = volumes.nifti(volume, 7, volume.slices[7], {"lambda": 0.3, "run": "λ"})
    result = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    assert result.shape == (9, 12, 1)
    assert result.get_data_dtype() == np.float32
    assert int(result.header["sform_code"]) == int(result.header["qform_code"]) == 2
    np.testing.assert_allclose(result.header.get_qform(), result.affine, atol=1e-4)
    assert bytes(result.header["descrip"]).rstrip(b"\0") == b"hyperrecon_jax, slice 7 of 10"
    (extension,) = result.header.extensions
    assert extension.get_code() == 6
    assert json.loads(extension.get_content().rstrip(b"\0")) == {"lambda": 0.3, "run": "λ"}
    seen = set()
    for voxel in np.ndindex(result.shape):
        file_voxel = np.linalg.inv(affine) @ result.affine @ [*voxel, 1]  # the file's voxel at the same place
        np.testing.assert_allclose(file_voxel, np.rint(file_voxel), atol=1e-4)
        index = tuple(np.rint(file_voxel[:3]).astype(int))
        np.testing.assert_allclose(result.dataobj[voxel], stored[index], atol=1e-3)
        seen.add(index)
    assert len(seen) == 9 * 12
    assert content == volumes.nifti(volume, 7, volume.slices[7], {"lambda": 0.3, "run": "λ"})

    reread = volumes.read("b.nii.gz", content, multiple=8)  # an export is a file like any other
    assert reread.slices.shape == (1, 16, 16)
    np.testing.assert_allclose(file_values(reread), file_values(volume)[7:8], atol=1e-3)
    np.testing.assert_allclose(reread.affine @ [3, 2, 0, 1], volume.affine @ [3, 2, 7, 1], atol=1e-4)


def test_all_slices_are_exported_together():
    volume = volumes.read("a.nii", nii(BRAIN, sform_code=4))
    result = volumes.read("b.nii.gz", volumes.nifti(volume, None, volume.slices, {}))
    np.testing.assert_allclose(result.slices, volume.slices, atol=1e-6)
    np.testing.assert_allclose(result.affine, volume.affine, atol=1e-4)
    assert result.space == volume.space == 4  # still MNI's


def test_scaled_integers_first_of_many_and_unknown_direction():
    stored = (RNG.random((12, 9, 10, 2)) * 3000).astype(np.int16)
    content = bytearray(nii(stored))
    struct.pack_into("<8f", content, 76, 1, 2, 3, 4, 1, 1, 1, 1)  # sides of a voxel
    struct.pack_into("<2f", content, 112, 0.5, -20)  # slope, intercept
    struct.pack_into("<2h", content, 252, 0, 0)  # neither qform nor sform, so the first axis runs to the left
    content = bytes(content)
    volume = assert_reads(content, axial(stored[::-1, :, :, 0]) * 0.5 - 20)
    assert "the first of 2 volumes" in volume.note
    assert "does not say how it lies" in volume.note
    assert volume.space == 0
    np.testing.assert_allclose(np.linalg.norm(volume.affine[:3, :3], axis=0), [3, 2, 4])
    # without a position the export claims none, and a reader shows it the same way round
    exported = volumes.nifti(volume, 3, volume.slices[3], {})
    result = nibabel.Nifti1Image.from_bytes(gzip.decompress(exported))
    assert int(result.header["sform_code"]) == int(result.header["qform_code"]) == 0
    assert result.shape == (12, 9, 1)
    assert result.header.get_zooms() == (2, 3, 4)
    np.testing.assert_allclose(file_values(volumes.read("x.nii.gz", exported)), file_values(volume)[3:4], atol=1e-3)
    # only the first volume of a large file is read
    assert_reads(gzip.compress(content)[:-300], axial(stored[::-1, :, :, 0]) * 0.5 - 20)


def test_a_picture_is_exported_without_a_place():
    volume = volumes.read("a.npy", saved(IMAGES))
    reread = volumes.read("b.nii.gz", volumes.nifti(volume, 1, volume.slices[1], {}))
    assert reread.space == 0
    np.testing.assert_allclose(reread.slices[0] * reread.scale[1], IMAGES[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("index", "image", "text", "message"),
    [
        (10, 0, {}, "`index` must be None or a whole number from 0 to 9, got 10"),
        (-1, 0, {}, "`index` must be None or a whole number from 0 to 9, got -1"),
        ("1", 0, {}, "`index` must be None or a whole number from 0 to 9, got '1'"),
        (1, np.zeros((9, 12)), {}, r"`image` must have shape \(16, 16\), got \(9, 12\)"),
        (None, np.zeros((16, 16)), {}, r"`image` must have shape \(10, 16, 16\), got \(16, 16\)"),
        (1, np.full((16, 16), np.nan), {}, "`image` must hold finite numbers"),
        (1, np.ones((16, 16)) * 1j, {}, "`image` must hold real numbers"),
        (1, np.ones((16, 16)), {"a": object()}, "`text` must be what JSON can hold"),
    ],
)
def test_wrong_exports_are_named(index, image, text, message):
    volume = volumes.read("a.nii", nii(BRAIN), multiple=8)
    with pytest.raises(InputError, match=message):
        volumes.nifti(volume, index, image, text)


# DICOM


PIXELS = RNG.integers(0, 4000, (16, 20), np.uint16)


def test_dicom_values():
    volume = assert_reads(dicom(PIXELS), PIXELS[None].astype(float))
    assert (volume.affine, volume.space) == (None, 0)
    signed = PIXELS.astype(np.int16) - 1000
    volume = assert_reads(dicom(signed, RescaleSlope=2, RescaleIntercept=-24), signed[None] * 2.0 - 24)
    assert volume.scale == (signed.min() * 2 - 24, signed.max() * 2 - 24)
    colours = RNG.integers(0, 256, (16, 20, 3), np.uint8)
    content = dicom(colours, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    assert_reads(content, (colours @ [0.299, 0.587, 0.114])[None])
    frames = np.stack([PIXELS, PIXELS // 2, PIXELS // 3])
    assert_reads(dicom(frames), frames.astype(float))
    data = pydicom.dcmread(io.BytesIO(dicom(PIXELS)))
    data.compress(pydicom.uid.RLELossless, encoding_plugin="pydicom")
    stream = io.BytesIO()
    data.save_as(stream)
    content = stream.getvalue()
    assert_reads(content, PIXELS[None].astype(float))


def test_dicom_whose_large_values_are_dark_is_inverted():
    """Its own range counts: the brightest is 1 and the darkest 0, whatever the number of bits."""
    volume = assert_reads(dicom(PIXELS + 50, PhotometricInterpretation="MONOCHROME1"), PIXELS[None] + 50.0)
    low, high = float(PIXELS.min()), float(PIXELS.max())
    assert volume.scale == (high + 50, low + 50)
    shown = volumes.crop(volume, volume.slices)[0]
    np.testing.assert_allclose(shown, (high - PIXELS) / (high - low), atol=1e-6)
    result = nibabel.Nifti1Image.from_bytes(gzip.decompress(volumes.nifti(volume, 0, volume.slices[0], {})))
    np.testing.assert_allclose(result.get_fdata()[:, ::-1, 0].T, PIXELS + 50, atol=1e-3)


def test_dicom_without_a_preamble_and_with_a_tiff_in_it():
    content = dicom(PIXELS)
    assert_reads(b"II*\0" + content[4:], PIXELS[None].astype(float))
    data = pydicom.dcmread(io.BytesIO(content))
    stream = io.BytesIO()
    old = Dataset({element.tag: element for element in data})
    pydicom.dcmwrite(stream, old, implicit_vr=True, little_endian=True)
    assert stream.getvalue()[128:132] != b"DICM"
    assert_reads(stream.getvalue(), PIXELS[None].astype(float), name="IM0001.DCM")


def test_dicom_positions():
    angle = 0.3
    across, down = np.array([np.cos(angle), np.sin(angle), 0]), np.array([-np.sin(angle), np.cos(angle), 0])
    place = np.array([-100.0, -80, 33])
    content = dicom(
        PIXELS,
        PixelSpacing=[0.75, 0.5],  # between rows, between columns
        ImageOrientationPatient=[round(float(v), 12) for v in (*across, *down)],
        ImagePositionPatient=list(map(float, place)),
        SliceThickness=3,
    )
    volume = assert_reads(content, PIXELS[None].astype(float))
    assert volume.space == 1
    assert volume.corner == (0, 0)
    for row, column in ((0, 0), (15, 0), (4, 19)):
        x, y, z = place + column * 0.5 * across + row * 0.75 * down
        np.testing.assert_allclose(volume.affine @ [row, column, 0, 1], [-x, -y, z, 1], atol=1e-9)
    np.testing.assert_allclose(volume.affine[:3, 2], [0, 0, 3], atol=1e-9)
    result = nibabel.Nifti1Image.from_bytes(gzip.decompress(volumes.nifti(volume, 0, volume.slices[0], {})))
    np.testing.assert_allclose(result.affine @ [4, 19, 0, 1], volume.affine @ [4, 19, 0, 1], atol=1e-4)

    lengths = volumes.read("x", dicom(PIXELS, PixelSpacing=[0.75, 0.5], SpacingBetweenSlices=5))
    assert lengths.space == 0
    np.testing.assert_allclose(np.linalg.norm(lengths.affine[:3, :3], axis=0), [0.75, 0.5, 5])
    zooms = nibabel.Nifti1Image.from_bytes(
        gzip.decompress(volumes.nifti(lengths, 0, lengths.slices[0], {}))
    ).header.get_zooms()
    assert zooms == (0.5, 0.75, 5)


def enhanced(places):
    def item(**fields):
        dataset = Dataset()
        for key, value in fields.items():
            setattr(dataset, key, value)
        return dataset

    frames = np.stack([PIXELS] * len(places))
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[2, 1], SliceThickness=9)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])],  # coronal
    )
    own = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=place)],
            PixelValueTransformationSequence=[item(RescaleSlope=k + 1, RescaleIntercept=-k)],
        )
        for k, place in enumerate(places)
    ]
    return dicom(frames, SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=own)


def test_dicom_frames():
    volume = volumes.read("x", enhanced([[1, 10 + 4 * k, 5] for k in range(3)]))
    expected = np.stack([PIXELS * (k + 1.0) - k for k in range(3)])
    np.testing.assert_allclose(file_values(volume), expected, atol=1e-2)
    assert volume.space == 1
    position = volume.affine @ [6, 7, 2, 1]  # row 6, column 7 of the last frame
    np.testing.assert_allclose(position, [-(1 + 7), -(10 + 8), 5 - 6 * 2, 1], atol=1e-9)
    for places, note in (
        ([[1, 10, 5]] * 3, "its slices lie at one place"),  # at three times
        ([[1, 10, 5], [1, 12, 5], [1, 20, 5]], "its slices lie at uneven steps"),
    ):
        uneven = volumes.read("x", enhanced(places))
        assert (uneven.space, len(uneven.slices)) == (0, 3)
        assert note in uneven.note


# fastMRI


def test_fastmri_reconstructions_are_preferred():
    kspace = fft(IMAGES).astype(np.complex64)
    content = hdf5({"acquisition": "CORPD_FBK"}, kspace=kspace, reconstruction_esc=IMAGES, reconstruction_rss=IMAGES + 1)
    volume = assert_reads(content, IMAGES)
    assert volume.note.startswith("3 slices of 16 x 24; acquisition CORPD_FBK; its `reconstruction_esc`; scaled")
    assert_reads(hdf5(kspace=kspace, reconstruction_rss=IMAGES + 1), IMAGES + 1)


def test_fastmri_kspace_becomes_images():
    phases = np.exp(1j * RNG.random(IMAGES.shape))
    assert_reads(hdf5(kspace=fft(IMAGES * phases).astype(np.complex64)), IMAGES, atol=1e-3)
    coils = RNG.normal(size=(4, 16, 24)) + 1j * RNG.normal(size=(4, 16, 24))
    content = hdf5(kspace=fft(IMAGES[:, None] * coils).astype(np.complex64))
    volume = assert_reads(content, IMAGES * np.linalg.norm(coils, axis=0), atol=1e-2)
    assert "the root of the sum of squares of 4 coils" in volume.note
    wide = RNG.random((1, 640, 24))
    volume = assert_reads(hdf5(kspace=fft(wide).astype(np.complex64)), wide[:, 160:480], atol=1e-5)
    assert volume.slices.shape == (1, 320, 24)
    assert "the middle of 640 x 24 pixels" in volume.note


@pytest.mark.parametrize("save", [saved, lambda kspace: hdf5(kspace=kspace), lambda kspace: hdf5(kspace=kspace[:, None])])
def test_kspace_moves_to_the_corner(save):
    images = IMAGES * np.exp(1j * RNG.random(IMAGES.shape))
    mask = np.arange(24) % 3 == 0
    kspace = fft(images) * mask
    volume = volumes.read("x", save(kspace), kind="kspace")
    zero_filled = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    peak = np.abs(zero_filled).max()
    assert volume.slices.dtype == np.complex64
    assert (volume.kind, volume.affine, volume.size) == ("kspace", None, None)
    np.testing.assert_allclose(volume.scale, (0, peak))
    np.testing.assert_allclose(volume.slices * peak, np.fft.fft2(zero_filled, norm="ortho"), atol=1e-3)
    np.testing.assert_allclose(np.abs(np.fft.ifft2(volume.slices, norm="ortho")).max(), 1, atol=1e-6)
    # exactly 0 where nothing was measured, and nowhere else
    np.testing.assert_array_equal((volume.slices != 0).any((0, 1)), np.fft.ifftshift(mask))
    assert "zero frequency moved to the corner" in volume.note
    # a reconstruction goes back without a crop, in the units of the file
    result = nibabel.Nifti1Image.from_bytes(
        gzip.decompress(volumes.nifti(volume, 0, np.abs(np.fft.ifft2(volume.slices[0], norm="ortho")), {}))
    )
    np.testing.assert_allclose(result.get_fdata()[:, ::-1, 0].T, np.abs(zero_filled[0]), atol=1e-3)


@pytest.mark.parametrize("save", [saved, lambda kspace: saved(kspace, np.savez), lambda kspace: hdf5(kspace=kspace)])
def test_kspace_of_coils(save):
    """Sides of any size; one scale for all coils and slices, of the root of the sum of squares."""
    seen = RNG.normal(size=(2, 3, 17, 24)) + 1j * RNG.normal(size=(2, 3, 17, 24))
    mask = np.arange(24) % 3 == 0
    volume = volumes.read("x", save(fft(seen) * mask), kind="kspace")
    assert (volume.slices.shape, volume.slices.dtype) == ((2, 3, 17, 24), np.complex64)
    images = np.fft.ifft2(volume.slices, norm="ortho")
    np.testing.assert_allclose(np.linalg.norm(images, axis=1).max(), 1, atol=1e-5)
    np.testing.assert_array_equal((volume.slices != 0).any((0, 1, 2)), np.fft.ifftshift(mask))
    # each coil is the same as in a file of that coil, up to the scale
    single = volumes.read("x", saved(fft(seen[:, 1]) * mask), kind="kspace")
    np.testing.assert_allclose(volume.slices[:, 1] * volume.scale[1], single.slices * single.scale[1], atol=1e-5)
    assert "2 slices of k-space of 3 coils of 17 x 24" in volume.note
    result = nibabel.Nifti1Image.from_bytes(gzip.decompress(volumes.nifti(volume, 1, np.abs(images[1, 0]), {})))
    np.testing.assert_allclose(result.get_fdata()[:, ::-1, 0].T, np.abs(images[1, 0]) * volume.scale[1], atol=1e-4)


def test_kspace_keeps_all_of_its_frequencies():
    image = RNG.random((21, 27))
    volume = volumes.read("x.npy", saved(fft(image)), kind="kspace")
    np.testing.assert_allclose(np.fft.ifft2(volume.slices[0], norm="ortho"), image / image.max(), atol=1e-6)
    assert "cut" not in volume.note


# What is wrong is said


def spoilt(value):
    images = IMAGES.copy()
    images[2, 3, 4] = value
    return images


def external():
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("reconstruction_rss", (1, 16, 16), "u1", external=[(__file__, 0, 256)])
    return stream.getvalue()


def linked(link):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["reconstruction_rss"] = link
    return stream.getvalue()


def virtual():
    layout = h5py.VirtualLayout((1, 16, 16), "f4")
    layout[0] = h5py.VirtualSource("other.h5", "kspace", (16, 16))
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_virtual_dataset("reconstruction_rss", layout)
    return stream.getvalue()


def sparse(key, shape, dtype, chunks):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset(key, shape, dtype, chunks=chunks, compression="gzip")
    return stream.getvalue()


def declared(shape, content=b"", dtype="<f4"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"shape": shape, "fortran_order": False, "descr": dtype})
    return stream.getvalue() + content


def zipped(content, name="a.npy"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


def huge_png(h, w):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def shaped(*shape):
    """A NIfTI header of an enormous volume, and nothing more."""
    content = nii(BRAIN)[:352]
    return content[:40] + struct.pack("<8h", len(shape), *shape, *[1] * (7 - len(shape))) + content[56:]


def readable(parameter):
    return "" if isinstance(parameter, bytes) else None  # bytes as they are: not the same in each process


COLOURS = np.zeros((12, 9, 10), [("R", "u1"), ("G", "u1"), ("B", "u1")])
MULTI = fft(np.stack([IMAGES] * 2, 1))
PHOTO = picture([np.zeros((16, 16), np.uint8) + 5], "PNG")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"", "must be an image file, but it is empty"),
        ("x", b"hello", "must be a .npy, .npz, PNG, JPEG, TIFF, NIfTI, MGH, DICOM or fastMRI .h5 file"),
        ("x.gz", gzip.compress(saved(IMAGES)), "must be a .npy, .npz, PNG"),
        ("x.npy", b"hello", "must be a whole .npy file, but it cannot be read"),
        ("x", saved(IMAGES)[:-1], "must be a whole file of 9216 bytes, but it ends after 9215"),
        ("x", saved(IMAGES)[:40], "must be a whole .npy file, but it cannot be read"),
        ("x", saved(np.array([None, "x"], object)), "must hold an array of numbers, got object"),
        ("x", saved(np.array(["x"])), "must hold an array of numbers, got <U1"),
        ("x", saved(np.zeros((2, 16, 16, 3))), r"must have shape \(h, w\), .* got \(2, 16, 16, 3\)"),
        ("x", saved(np.zeros(5)), r"must have shape \(h, w\), .* got \(5,\)"),
        ("x", saved(np.float32(5)), r"must have shape \(h, w\), .* got \(\)"),
        ("x", saved(IMAGES[:0]), "must hold at least one slice, got 0 of 16 x 24"),
        ("x", saved(IMAGES[:, :7]), "must hold slices of 8 to 2048 pixels a side, got 3 of 7 x 24"),
        ("x", saved(np.zeros((1, 2049, 8))), "must hold slices of 8 to 2048 pixels a side, got 1 of 2049 x 8"),
        ("x", saved(spoilt(np.inf)), "must hold finite numbers, but slice 2 has infinity"),
        ("x", saved(spoilt(0).astype(complex) + spoilt(np.inf)), "must hold finite numbers, but slice 2 has infinity"),
        ("x", saved(IMAGES * np.nan), "must hold an image, but all of its values are NaN or padding"),
        ("x", saved(IMAGES * 0 + 5), "must hold an image, but its values go from 5 to 5"),
        ("x", saved(np.zeros((16, 16))), "must hold an image, but its values go from 0 to 0"),
        ("x", saved(-np.ones((16, 16))), "must hold an image, but its values go from -1 to -1"),
        ("x", saved(np.array([[1.5e308] * 8, [-1.5e308] * 8] * 4)), r"of finite range, got -1.5e\+308 to 1.5e\+308"),
        ("x", declared((2**40, 16, 16)), "must hold at most 134217728 pixels"),
        ("x", declared((-1, 16, 16)), "must hold at least one slice, got -1 of 16 x 16"),
        ("x", declared((100, 1024, 1024)), "must be a whole file of 419430400 bytes, but it ends after 0"),
        ("x", b"\x93NUMPY\x03\x00" + saved(IMAGES)[8:], "must be a .npy file of version 1.0 or 2.0, got 3.0"),
        ("x", zipped(declared((2**40, 16, 16))), "must hold at most 134217728 pixels"),
        ("x", zipped(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + bytes(10**6)), "whole .npz file, but it cannot"),
        ("x", zipped(saved(IMAGES))[:-30], "must be a whole .npz file, but it cannot be read"),
        ("x", zipped(saved(IMAGES), "a.txt"), "must hold an array, but it is an archive without one"),
        ("x", flipped(zipped(saved(IMAGES)), 500), "must be a whole .npz file, but it cannot be read"),
        ("x", volumes.npz(IMAGES, {}).replace(b"image.npy", b"imaga.npy"), "got imaga, metadata"),
        ("x", PHOTO[:-30], "must be a whole PNG, JPEG or TIFF file, but it cannot be read"),
        ("x", PHOTO[:20], "must be a whole PNG, JPEG or TIFF file, but it cannot be read"),
        ("x", huge_png(4000, 4000), "must hold slices of 8 to 2048 pixels a side, got 1 of 4000 x 4000"),
        ("x", huge_png(10**5, 10**5), "must be a whole PNG, JPEG or TIFF file, but it cannot be read"),
        ("x", huge_png(2000, 2000), "must be a whole PNG, JPEG or TIFF file, but it cannot be read"),
        ("x.tif", picture([np.ones((16, 16), np.uint8), np.ones((16, 24), np.uint8)], "TIFF"), "pages of one size"),
        ("x.jpg", b"GIF89a" + bytes(50), "must be a whole PNG, JPEG or TIFF file"),
        ("x", nii(BRAIN)[:-1], "must be a whole file of 4672 bytes, but it ends after 4671"),
        ("x", nii(BRAIN)[:350], "must be a whole file of 4672 bytes, but it ends after 350"),
        ("x", nii(BRAIN, zipped=True)[:-200], "must be a whole NIfTI file, but it cannot be read"),
        ("x", nii(BRAIN, zipped=True)[:-8] + bytes(8), "must be a whole NIfTI file, but it cannot be read: CRC"),
        ("x", nii(BRAIN, zipped=True)[:20], "must be a whole gzip file, but it cannot be read"),
        ("x.nii.gz", gzip.compress(b"no"), "must be a NIfTI or MGH file, but it does not start like one"),
        ("x", nii(BRAIN)[:344] + b"ni1" + nii(BRAIN)[347:], "must be a NIfTI file of one piece"),
        ("x", nii(BRAIN * np.nan), "must hold an image, but all of its values are NaN or padding"),
        ("x", nii(COLOURS), "must hold one number a voxel, got the data type .*'R'"),
        ("x", nii(BRAIN[:, :1, :1]), "must hold axial slices of 8 to 2048 pixels a side, got 1 of 1 x 12"),
        ("x", nii(BRAIN[0, 0]), "must hold a volume of three dimensions, got shape"),
        ("x", shaped(2000, 2000, 2000), "must hold at most 134217728 pixels"),
        ("x", shaped(512, 512, 0), "must hold a volume of three dimensions, got shape"),
        ("x", shaped(512, 512, -3), "must hold a volume of three dimensions, got shape"),
        ("x", gzip.compress(shaped(500, 500, 500)), "must be a whole file of 500000352 bytes, but it ends after 352"),
        ("x", nii(BRAIN)[:108] + struct.pack("<f", 1e12) + nii(BRAIN)[112:], "voxels that start within"),
        ("x", nii(BRAIN)[:108] + struct.pack("<f", np.nan) + nii(BRAIN)[112:], "whole NIfTI file, but it cannot be read"),
        ("x", nii(BRAIN)[:70] + b"\xff\x7f" + nii(BRAIN)[72:], "must be a whole NIfTI file, but it cannot be read"),
        ("x", nii(BRAIN, form=nibabel.MGHImage)[:2000], "must be a whole file of 4604 bytes, but it ends after 2000"),
        ("x", dicom(PIXELS)[:-9], "must be a whole DICOM file, but it cannot be read"),
        ("x", dicom(PIXELS)[:200], "must be a DICOM file with an image, but it lacks Rows, Columns"),
        ("x.dcm", bytes(range(256)) * 8, "must be a"),
        ("x", dicom(PIXELS, PixelData=None), "must be a DICOM file with an image, but it lacks pixels"),
        ("x", dicom(PIXELS, Rows=60000), "must hold slices of 8 to 2048 pixels a side, got 1 of 60000 x 20"),
        ("x", dicom(PIXELS, NumberOfFrames=10**8), "must hold at most 134217728 pixels"),
        ("x", dicom(PIXELS, PhotometricInterpretation="HSV"), "must be gray, RGB or of a palette, got .* 'HSV'"),
        ("x", dicom(PIXELS, RescaleSlope="0", RescaleIntercept="0"), "must hold an image, but its values go from 0 to 0"),
        (
            "x",
            dicom(PIXELS, syntax=pydicom.uid.JPEGLSLossless, encapsulated=[b"\xff\xd8 no"]),
            "they are compressed as JPEG-LS Lossless Image Compression; (run: pip install python-gdcm$|save it without)",
        ),
        (
            "x",
            dicom(PIXELS, syntax=pydicom.uid.RLELossless, encapsulated=[bytes(70)]),
            "whose pixels can be decoded, but they are compressed as RLE Lossless; save it without compression",
        ),
        ("x", dicom(PIXELS, syntax=pydicom.uid.DeflatedExplicitVRLittleEndian), "that is not deflated as a whole"),
        ("x", hdf5(kspace=MULTI)[:3000], "must be a whole HDF5 file, but it cannot be read"),
        ("x.h5", b"no", "must be a whole HDF5 file, but it cannot be read"),
        ("x", hdf5(), "must be a fastMRI file with `reconstruction_esc`, .* or `kspace`, got one with nothing"),
        ("x", hdf5(mask=[1], image=[2]), "or `kspace`, got one with image, mask"),
        ("x", hdf5(kspace=IMAGES), r"must have complex `kspace` .* got float64 of shape \(3, 16, 24\)"),
        ("x", hdf5(kspace=IMAGES[0] * 1j), r"must have complex `kspace` .* got complex128 of shape \(16, 24\)"),
        ("x", hdf5(kspace=spoilt(np.nan) + 0j), "must hold finite numbers, but slice 2 has NaN or infinity"),
        ("x", hdf5(kspace=np.zeros((1, 129, 8, 8), np.complex64)), "`kspace` of 1 to 128 coils .* got 129 coils"),
        ("x", hdf5(reconstruction_rss=IMAGES[0]), r"`reconstruction_rss` of shape \(slices, h, w\), got \(16, 24\)"),
        ("x", hdf5(reconstruction_rss=spoilt(np.inf)), "must hold finite numbers, but slice 2"),
        ("x", hdf5(reconstruction_rss="text"), "must have numbers as `reconstruction_rss`"),
        ("x", hdf5(reconstruction_rss=h5py.Empty("f4")), "must have numbers as `reconstruction_rss`"),
        ("x", hdf5(**{"reconstruction_rss/a": IMAGES}), "as a dataset in the file itself, not a group or a link"),
        ("x", external(), "as a dataset in the file itself, not a group or a link"),
        ("x", virtual(), "as a dataset in the file itself, not a group or a link"),
        ("x", linked(h5py.ExternalLink("other.h5", "/kspace")), "as a dataset in the file itself, not a group or a link"),
        ("x", linked(h5py.SoftLink("/kspace")), "as a dataset in the file itself, not a group or a link"),
        ("x", sparse("reconstruction_rss", (10**6, 640, 640), "f4", (1, 640, 640)), "at most 134217728 pixels"),
        ("x", sparse("kspace", (300, 8, 640, 640), "c8", (1, 8, 640, 640)), "at most 536870912 numbers, got 8 coils"),
        ("x", sparse("kspace", (50, 8, 640, 640), "c8", (2, 8, 640, 640)), "`kspace` in chunks of one slice"),
    ],
    ids=readable,
)
def test_wrong_files_are_named(name, content, message):
    with pytest.raises(InputError, match=f"^{name} .*{message}"):
        volumes.read(name, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PHOTO, "must be a .npy, .npz, .h5, .mat or BART file to hold k-space, but it is a PNG, JPEG or TIFF file"),
        (nii(BRAIN.astype(np.complex64)), "must be a .npy, .npz, .h5, .mat or BART file .* but it is a NIfTI file"),
        (saved(IMAGES), "must hold complex numbers to be k-space, got float64"),
        (saved(np.zeros((16, 16), complex)), "must hold k-space of an image, but the largest value of the image is 0"),
        (saved(spoilt(np.nan) + 0j), "must hold finite numbers, but slice 2 has NaN or infinity"),
        (saved(IMAGES[:, :5] + 0j), "must hold slices of 8 to 2048 pixels a side, got 3 of 5 x 24"),
        (saved(np.zeros((1, 129, 8, 8), complex)), "must have k-space of 1 to 128 coils, got 129 of 8 x 8"),
        (
            declared((16, 100, 512, 512), dtype="<c8"),
            "must hold k-space of at most 134217728 samples, got 16 slices of 100 coils",
        ),
        (declared((2, 3, 16, 16), dtype="<c8"), "must be a whole file of 12288 bytes, but it ends after 0"),
        (
            saved(np.zeros((1, 2, 3, 16, 16), complex)),
            r"\(n, 1, h, w\) or, of coils, \(n, c, h, w\), got \(1, 2, 3, 16, 16\)",
        ),
        (saved(spoilt(np.nan)[:, None].repeat(2, 1) + 0j), "must hold finite numbers, but slice 2 has NaN or infinity"),
        (sparse("kspace", (40, 16, 640, 640), "c8", (1, 1, 640, 640)), "of at most 134217728 samples, got 40 slices of 16"),
        (hdf5(reconstruction_rss=IMAGES), "must be a fastMRI file with `kspace`, got one with reconstruction_rss"),
    ],
    ids=readable,
)
def test_wrong_kspace_is_named(content, message):
    with pytest.raises(InputError, match=f"^x .*{message}"):
        volumes.read("x", content, kind="kspace")


def test_wrong_kind_is_named():
    with pytest.raises(InputError, match=r'`kind` must be "image" or "kspace", got \'photo\''):
        volumes.read("x", PHOTO, kind="photo")


def test_every_cut_of_a_file_is_read_or_refused():
    """However a file is cut short, it is read or it raises `InputError`."""
    for content in (
        saved(ODD),
        nii(BRAIN),
        nii(BRAIN, zipped=True),
        PHOTO,
        dicom(PIXELS),
        hdf5(kspace=MULTI),
        zipped(saved(ODD)),
    ):
        for end in range(0, len(content), max(1, len(content) // 25)):
            try:
                volume = volumes.read("x", content[:end])
            except InputError:
                continue
            # it lacked no pixels
            np.testing.assert_array_equal(volume.slices, volumes.read("x", content).slices)


def test_nothing_is_imported_before_it_is_needed():
    code = "import sys, hyperrecon_jax.data.volumes; print({'nibabel', 'pydicom', 'h5py', 'PIL', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Pictures of several frames.


@pytest.mark.parametrize("options", [{"truncate": True}, {"truncate": True, "imagej": True}])
def test_a_tiff_that_describes_more_slices_than_pages_is_refused(options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.arange(5 * 16 * 16, dtype=np.uint16).reshape(5, 16, 16), **options)
    with pytest.raises(InputError, match=r"a\.tif must hold a page for each slice, but it describes 1280 numbers"):
        volumes.read("a.tif", stream.getvalue())


@pytest.mark.parametrize("kind", ["PNG", "MPO"])
def test_the_first_frame_of_a_picture_is_said_to_be_that(kind):
    frames = [Image.fromarray(pixels) for pixels in RNG.integers(0, 255, (3, 16, 16), np.uint8)]
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    assert "; the first of 3 frames; " in volumes.read("a.png", stream.getvalue()).note
