"""What a stored value means, in files of every kind, through every reader of images: the same picture comes out."""

import re
import warnings

import numpy as np
import pydicom
import pytest
from faults import intensity_files as files
from helper import npy_bytes, npz_bytes

from hyperrecon_jax.cli import messages
from hyperrecon_jax.data import volumes
from hyperrecon_jax.data.sources import folder
from hyperrecon_jax.data.sources.base import Settings
from hyperrecon_jax.data.volumes import intensity
from hyperrecon_jax.data.volumes.stack import Stack
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.datasets import load_data
from hyperrecon_jax.runtime.errors import InputError

HEAD = files.head()
EXPECTED = HEAD / HEAD.max()
STORED = np.rint(HEAD * 3000).astype(np.uint16)
DARK = 4095 - STORED
INSIDE = np.hypot(*(np.mgrid[: files.SIZE, : files.SIZE] - files.SIZE / 2)) < 0.46 * files.SIZE
OUTSIDE = ~INSIDE
DEEP = np.rint(HEAD * 60000).astype(np.uint16)
SETTINGS = Settings(size=files.SIZE, slices=9, coils=0, acquisition="", whiten=False)
RNG = np.random.default_rng(0)


def padded(dtype, value, image=STORED):
    return np.where(INSIDE, image.astype(dtype), np.asarray(value).astype(dtype))


def spoilt(value, row=5, column=5, dtype=np.float32):
    image = HEAD.astype(dtype)
    image[row, column] = value
    return image


def colours(image, channels=3):
    return np.repeat(image[..., None], channels, axis=-1)


GRAY_PALETTE = np.arange(256) * 257
DICOM = {
    "plain": files.dicom(STORED),
    "a window does not clip": files.dicom(STORED, WindowCenter=300, WindowWidth=100),
    "signed": files.dicom(STORED.astype(np.int16)),
    "eight bits": files.dicom(np.rint(HEAD * 200).astype(np.uint8)),
    "twelve bits with an overlay above them": files.dicom(STORED | 0x5000, BitsStored=12, HighBit=11),
    "unsigned padding": files.dicom(padded(np.uint16, 65535), PixelPaddingValue=65535),
    "signed padding": files.dicom(padded(np.int16, -32768), PixelPaddingValue=-32768),
    "signed padding that claims to be unsigned": files.dicom(padded(np.int16, -2000), elements=[(0x00280120, "US", 63536)]),
    "a range of padding": files.dicom(
        padded(np.uint16, RNG.integers(60000, 65535, STORED.shape)),
        PixelPaddingValue=65535,
        PixelPaddingRangeLimit=60000,
    ),
    "padding and a slope": files.dicom(
        padded(np.int16, -2000), PixelPaddingValue=-2000, RescaleSlope=2, RescaleIntercept=-100
    ),
    "padding of zeros": files.dicom(padded(np.uint16, 0), PixelPaddingValue=0),
    "floating-point padding": files.dicom(
        padded(np.float32, -1e30), elements=[(0x00280122, "FL", float(np.float32(-1e30)))]
    ),
    "MONOCHROME1": files.dicom(DARK, PhotometricInterpretation="MONOCHROME1"),
    "MONOCHROME1 of lower contrast": files.dicom(
        (4095 - np.rint(STORED * 0.3)).astype(np.uint16), PhotometricInterpretation="MONOCHROME1"
    ),
    "MONOCHROME1, signed, with a slope": files.dicom(
        (2000 - STORED.astype(np.int16)), PhotometricInterpretation="MONOCHROME1", RescaleSlope=3, RescaleIntercept=-7
    ),
    "MONOCHROME1 of two frames with padding": files.dicom(
        np.stack([padded(np.uint16, 65535, DARK)] * 2), PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=65535
    ),
    "MONOCHROME1 with dark padding": files.dicom(
        padded(np.uint16, 0, DARK), PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0
    ),
    "a look-up table": files.dicom(
        np.rint(np.sqrt(HEAD) * 250).astype(np.uint16) + 40,
        ModalityLUTSequence=[files.lut_item(np.arange(256) ** 2, 40)],
    ),
    "a look-up table and padding": files.dicom(
        np.where(INSIDE, np.rint(np.sqrt(HEAD) * 250) + 40, 600).astype(np.uint16),
        ModalityLUTSequence=[files.lut_item(np.arange(256) ** 2, 40)],
        PixelPaddingValue=600,
    ),
    "a palette": files.dicom(
        np.rint(HEAD * 255).astype(np.uint8), **files.palette(GRAY_PALETTE, GRAY_PALETTE, GRAY_PALETTE)
    ),
}
TIFF = {
    "white is zero, 8 bits": files.tiff(255 - np.rint(HEAD * 250).astype(np.uint8), photometric="miniswhite"),
    "white is zero, 8 bits, lower contrast": files.tiff(
        200 - np.rint(HEAD * 200).astype(np.uint8), photometric="miniswhite"
    ),
    "white is zero, 16 bits": files.tiff(65535 - DEEP, photometric="miniswhite"),
    "white is zero, 12 of 16 bits": files.tiff(DARK, photometric="miniswhite"),
    "white is zero, 32 bits": files.tiff(np.uint32(2**32 - 1) - DEEP * np.uint32(65536), photometric="miniswhite"),
    "white is zero, floating-point": files.tiff((1 - HEAD).astype(np.float32), photometric="miniswhite"),
    "white is zero, double": files.tiff(1 - HEAD, photometric="miniswhite"),
    "half": files.tiff(HEAD.astype(np.float16)),
    "double": files.tiff(HEAD),
    "double, deflated": files.tiff(HEAD, compression="zlib"),
    "32 bits": files.tiff(DEEP * np.uint32(65536)),
    "signed 8 bits": files.tiff(np.rint(HEAD * 250 - 120).astype(np.int8)),
    "signed 16 bits": files.tiff(STORED.astype(np.int16)),
    "16-bit colours": files.tiff(colours(STORED), photometric="rgb"),
    "16-bit colours in planes": files.tiff(
        np.stack([STORED] * 3), photometric="rgb", planarconfig="separate", compression="zlib"
    ),
    "16-bit colours and transparency": files.tiff(
        np.dstack([colours(STORED), RNG.integers(0, 65535, STORED.shape, np.uint16)]),
        photometric="rgb",
        extrasamples=["unassalpha"],
    ),
    "a palette": files.tiff(
        np.rint(HEAD * 255).astype(np.uint8), photometric="palette", colormap=np.stack([GRAY_PALETTE.astype(np.uint16)] * 3)
    ),
}
PNG = {
    "16 bits": files.png16(STORED[..., None]),
    "16 bits and transparency": files.png16(np.dstack([STORED, RNG.integers(0, 65535, STORED.shape)])),
    "16-bit colours": files.png16(colours(STORED)),
    "16-bit colours and transparency": files.png16(np.dstack([colours(STORED), RNG.integers(0, 65535, STORED.shape)])),
    "a palette": files.png_palette(np.rint(HEAD * 255).astype(np.uint8), colours(255 - np.arange(256))[::-1]),
}
ARRAYS = {
    "twelve bits": npy_bytes(STORED),
    "32 bits": npy_bytes((HEAD * 4e9).astype(np.uint32)),
    "half": npy_bytes(HEAD.astype(np.float16)),
    "a hot pixel": npy_bytes(spoilt(10)),
    "a hot pixel in 12 bits": npy_bytes(np.where(spoilt(10) > 9, 65535, STORED).astype(np.uint16)),
    "a hot pixel below 0": npy_bytes(spoilt(-10)),
    "hot pixels at both ends": npy_bytes(np.where(spoilt(10) > 9, 10, spoilt(-99, 2, 2))),
    "NaN": npy_bytes(np.where(INSIDE, HEAD, np.nan)),
    "NaN in an archive": npz_bytes(image=np.where(INSIDE, HEAD, np.nan).astype(np.float32)),
    "NaN in complex values": npz_bytes(image=np.where(INSIDE, HEAD * np.exp(1j * np.pi * HEAD), np.nan)),
}
NIFTI = {
    "NaN": files.nifti(np.where(INSIDE, HEAD, np.nan).astype(np.float32)),
    "32 bits": files.nifti((HEAD * 4e9).astype(np.uint32)),
    "double": files.nifti(HEAD),
}
FILES = {
    f"{kind}: {name}": (content, name)
    for kind, group in (("DICOM", DICOM), ("TIFF", TIFF), ("PNG", PNG), ("NumPy", ARRAYS), ("NIfTI", NIFTI))
    for name, content in group.items()
}
TOLERANCE = {  # of rounding, for files with these words in their names
    "eight bits": 6e-3,
    "8 bits": 6e-3,
    "a palette": 5e-3,
    "look-up": 6e-3,
    "half": 1e-3,
    "lower contrast": 2e-3,
}


def tolerance(name):
    return max([4e-4, *(value for words, value in TOLERANCE.items() if words in name)])


def differences(image):
    """How far each pixel is from the right value; hot pixels do not count."""
    difference = np.abs(image - EXPECTED)
    difference[[5, 2], [5, 2]] = 0
    return difference


@pytest.mark.parametrize("case", FILES)
def test_the_page_and_a_folder_show_the_same(case, tmp_path):
    content, name = FILES[case]
    volume = volumes.read("file", content)
    for image in volume.slices:
        assert differences(image).max() <= tolerance(name)
    assert volume.slices.min() == 0
    assert volume.slices.max() == 1
    black, white = volume.scale
    assert volume.slices.dtype == np.float32
    assert (black > white) == ("MONOCHROME1" in name or "white is zero" in name)

    (tmp_path / "file").write_bytes(content)
    slices = folder.read([tmp_path / "file"], SETTINGS)
    np.testing.assert_allclose(slices.image, volume.slices, atol=1e-6)
    changes = [change for change in volume.note[:-1].split("; ")[1:] if not change.startswith("padded with zeros")]
    if changes[-1].startswith("scaled by its maximum"):  # as usual, so it is not said
        changes.pop()
    assert "; ".join(slices.notes) == "; ".join(changes)


@pytest.mark.parametrize(
    ("case", "note"),
    [
        ("DICOM: MONOCHROME1", "inverted, as large values are dark: 4095, the largest value, became 0 and 1396 became 1"),
        ("DICOM: a range of padding", f"{OUTSIDE.sum()} pixels of padding ({OUTSIDE.mean():.2%}) became 0"),
        ("DICOM: a look-up table", "its modality look-up table was applied"),
        ("DICOM: a palette", "colours became their luminance"),
        ("NumPy: NaN", f"{OUTSIDE.sum()} values that are NaN ({OUTSIDE.mean():.2%}) became 0"),
        ("NumPy: a hot pixel", "1 outlying value, up to 10, became 0 or 1"),
        ("NumPy: a hot pixel below 0", "1 outlying value, down to -10, became 0 or 1"),
        ("NumPy: hot pixels at both ends", "2 outlying values, down to -99 and up to 10, became 0 or 1"),
    ],
)
def test_the_note_says_what_was_done(case, note):
    if "1396" in note:
        note = note.replace("1396", str(DARK.min()))
    assert note in volumes.read("file", FILES[case][0]).note


def test_padding_does_not_count_as_missing():
    scale = intensity.find_scale([("a", Stack(np.array([[[1.0, np.nan, 9, 4]]]), [], padding=(9, 9)))])
    assert (scale.padding, scale.missing, scale.size, scale.white) == (1, 1, 4, 4)


def test_two_levels_of_which_zero_is_white():
    volume = volumes.read("file", files.bilevel_tiff(HEAD > 0))
    np.testing.assert_array_equal(volume.slices[0], HEAD > 0)


def test_colours_have_the_luminance_of_all_their_bits():
    rgb = RNG.integers(0, 65536, (16, 24, 3), np.uint16)
    expected = rgb @ [0.299, 0.587, 0.114]
    for content in (files.png16(rgb), files.tiff(rgb, photometric="rgb")):
        volume = volumes.read("file", content)
        np.testing.assert_allclose(volume.slices[0] * volume.scale[1], expected, rtol=1e-6)
    red, green, blue = RNG.integers(0, 65536, (3, 256))
    levels = RNG.integers(0, 256, (16, 24), np.uint8)
    volume = volumes.read("file", files.dicom(levels, **files.palette(red, green, blue)))
    expected = (np.stack([red, green, blue], -1) @ [0.299, 0.587, 0.114])[levels]
    np.testing.assert_allclose(volume.slices[0] * volume.scale[1], expected, rtol=1e-6)


def test_values_are_those_of_pydicom():
    """Slope and intercept, signed values, a range of padding: outside of the padding as the reference has it."""
    stored = RNG.integers(-2000, 2000, (16, 16), np.int16)
    content = files.dicom(
        stored, RescaleSlope=1.5, RescaleIntercept=-30, PixelPaddingValue=-1900, PixelPaddingRangeLimit=-2000
    )
    data = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    expected = pydicom.pixels.apply_modality_lut(data.pixel_array, data)
    volume = volumes.read("file", content)
    black, white = volume.scale
    inside = stored > -1900
    assert (black, white) == (expected[inside].min(), expected.max())
    np.testing.assert_allclose((black + volume.slices[0] * (white - black))[inside], expected[inside], atol=1e-3)
    assert (volume.slices[0][~inside] == 0).all()


def outlier_free(values, factor):
    """The largest value, one of which is `factor` times as large, after scaling."""
    values = values.copy()
    values.flat[7] = factor * values.max()
    scale = intensity.find_scale([("a", Stack(values[None], []))])
    return scale.white / values.max(), scale.outliers


def test_what_is_an_outlier():
    """One value in a thousand, more than twice as far from 0 as the others; what small images hold is none."""
    values = RNG.uniform(0.9, 1, (40, 40))
    assert outlier_free(values, 1.8) == (1, 0)
    assert outlier_free(values, 2.3) == (pytest.approx(1 / 2.3, rel=1e-3), 1)
    assert outlier_free(values[:9, :9], 50) == (1, 0)
    many = values.copy()
    many.flat[:20] = 50  # a vessel, not a pixel
    assert outlier_free(many, 1.5) == (1, 0)
    sparse = np.zeros((40, 40))
    sparse[3, :4] = 1, 2, 3, 90  # points on a background
    assert outlier_free(sparse, 1) == (1, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy_bytes(HEAD * np.nan), "must hold an image, but all of its values are NaN or padding"),
        (npz_bytes(image=HEAD * np.nan), "must hold an image, but all of its values are NaN or padding"),
        (npy_bytes(spoilt(np.inf)), "must hold finite numbers, but slice 0 has infinity"),
        (npy_bytes(spoilt(-np.inf)), "must hold finite numbers, but slice 0 has infinity"),
        (npy_bytes(spoilt(complex(np.nan, np.inf), dtype=complex)), "must hold finite numbers, but slice 0 has infinity"),
        (npy_bytes(np.full((16, 16), 7)), "must hold an image, but its values go from 7 to 7"),
        (files.dicom(STORED * 0 + 9, PixelPaddingValue=9), "must hold an image, but all of its values are NaN or padding"),
        (
            files.dicom(STORED * 0 + 9, PhotometricInterpretation="MONOCHROME1"),
            "must hold an image, but its values go from 9 to 9",
        ),
        (files.tiff(np.ones((16, 16), complex)), "must hold pages of real numbers, got complex128"),
    ],
)
def test_what_is_no_image_is_refused(content, message):
    with pytest.raises(InputError, match=f"^file {message}"):
        volumes.read("file", content)


def test_a_tiff_that_inflates_without_end_is_refused():
    content = files.tiff(np.zeros((16, 16)), compression="zlib", metadata=None)
    with pytest.raises(InputError, match="must hold pages of 512 bytes, but there are more"):
        volumes.read("file", content.replace(np.uint16(64).tobytes() + b"\0\0", np.uint16(16).tobytes() + b"\0\0"))


@pytest.mark.parametrize("syntax", ["JPEGLossless", "JPEGLosslessSV1", "JPEGLSLossless"])
def test_lossless_jpeg(syntax, tmp_path, monkeypatch):
    """The message without the library that decodes it, and the pixels with it."""
    pytest.importorskip("gdcm")
    content = files.compress(tmp_path, files.dicom(STORED), syntax)
    volume = volumes.read("file", content)
    np.testing.assert_array_equal(np.rint(volume.slices[0] * volume.scale[1]), STORED)
    uid = getattr(pydicom.uid, syntax)
    monkeypatch.setattr(pydicom.pixels.get_decoder(uid), "_available", {})
    with pytest.raises(InputError, match=rf"they are compressed as {re.escape(uid.name)}; run: pip install python-gdcm$"):
        volumes.read("file", content)


def load_arrays(**paths):
    return load_data(complete({"data": {"source": "arrays", **paths}, "train": {"batch": 1}}))


def test_messages_about_arrays_name_the_flag_at_hand(tmp_path):
    np.save(tmp_path / "good.npy", HEAD[None].astype(np.float32))
    np.save(tmp_path / "hot.npy", spoilt(np.float32(1.01))[None])
    good, hot = str(tmp_path / "good.npy"), str(tmp_path / "hot.npy")
    with pytest.raises(InputError, match=rf"^The file {re.escape(hot)} must hold values in \[0, 1\], got 0 to 1\.01;"):
        load_arrays(train=hot, val=hot, test=hot)
    with pytest.raises(InputError, match=rf"^config\.data\.val {re.escape(hot)} must hold values in"):
        load_arrays(train=good, val=hot, test=good)


def test_a_command_prints_a_note(tmp_path, capsys):
    np.save(tmp_path / "a.npy", STORED[None])
    with warnings.catch_warnings():
        messages.show_data_warnings()
        dataset = load_arrays(**dict.fromkeys(("train", "val", "test"), str(tmp_path / "a.npy")))
    assert capsys.readouterr().err == (
        f"note: The file {tmp_path / 'a.npy'} of uint16: scaled by its maximum {STORED.max()}; for another scale, save"
        " float32 in [0, 1].\n"
    )
    np.testing.assert_allclose(dataset.test.samples.arrays.image[0, ..., 0], EXPECTED, atol=4e-4)
