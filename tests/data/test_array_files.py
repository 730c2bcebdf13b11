"""Images of the user's own: what is read, and what each mistake is told."""

import os
import re

import numpy as np
import pytest

from hyperrecon_jax import data
from hyperrecon_jax.runtime.errors import DataWarning, InputError

IMAGES = np.random.default_rng(0).random((5, 16, 24), np.float32)


def read(folder, images):
    paths = {}
    for name, array in zip(("train", "val", "test"), (images, IMAGES[:2], IMAGES[2:3]), strict=True):
        paths[name] = folder / f"{name}.npy"
        np.save(paths[name], array)
    return data.arrays(**paths)


@pytest.mark.parametrize("shape", [(5, 16, 24), (5, 1, 16, 24), (5, 16, 24, 1)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_layouts_and_precisions(tmp_path, shape, dtype):
    dataset = read(tmp_path, IMAGES.reshape(shape).astype(dtype))
    np.testing.assert_array_equal(dataset.train.samples.arrays.image, IMAGES[..., None].astype(dtype).astype(np.float32))
    assert dataset.train.samples.arrays.image.dtype == np.float32
    assert dataset.train.samples.arrays.label is None
    assert [s.samples.arrays.image.shape for s in dataset] == [(5, 16, 24, 1), (2, 16, 24, 1), (1, 16, 24, 1)]
    np.testing.assert_array_equal(np.concatenate([s.subjects for s in dataset]), np.arange(8))


def test_they_have_no_labels(tmp_path):
    with pytest.raises(InputError, match="images must have labels"):
        data.require_labels(read(tmp_path, IMAGES).train)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (">u2", 65535), (bool, 1)])
def test_integers_that_use_their_type_are_scaled_by_the_largest_of_their_type(tmp_path, dtype, top):
    stored = (IMAGES * top).round().astype(dtype)
    np.testing.assert_allclose(read(tmp_path, stored).train.samples.arrays.image[..., 0], stored / top, atol=1e-7)


@pytest.mark.parametrize(("dtype", "low", "high"), [("u2", 0, 4095), ("i2", -300, 2000), ("u4", 0, 3e9), ("u1", 0, 100)])
def test_other_integers_are_scaled_by_the_range_of_all_splits(tmp_path, dtype, low, high):
    stored = (low + IMAGES * (high - low)).astype(dtype)
    paths = [tmp_path / f"{split}.npy" for split in ("train", "val", "test")]
    parts = stored[:2], stored[2:3], stored[3:]
    for path, part, byte_order in zip(paths, parts, "<><", strict=True):
        np.save(path, part.astype(part.dtype.newbyteorder(byte_order)))
    with pytest.warns(DataWarning, match=rf"^`train` .*train\.npy and 2 more of {np.dtype(dtype)}: .*; for another scale"):
        dataset = data.arrays(train=paths[0], val=paths[1], test=paths[2])
    black = min(float(stored.min()), 0)
    for split, part in zip(dataset, parts, strict=True):
        expected = (part - black) / (stored.max() - black)
        np.testing.assert_allclose(split.samples.arrays.image[..., 0], expected, atol=1e-6)


def test_a_hot_pixel_does_not_make_twelve_bits_sixteen(tmp_path):
    stored = np.rint(IMAGES * 4095).astype(np.uint16)
    expected = stored / stored.max()
    stored[1, 2, 3], expected[1, 2, 3] = 65535, 1
    np.save(tmp_path / "a.npy", stored)
    with pytest.warns(DataWarning, match="1 outlying value, up to 65535, became 0 or 1"):
        dataset = data.arrays(**dict.fromkeys(("train", "val", "test"), tmp_path / "a.npy"))
    np.testing.assert_allclose(dataset.train.samples.arrays.image[..., 0], expected, atol=1e-4)


@pytest.mark.parametrize(("value", "expected"), [(np.float32(1.0000001), 1), (np.float32(-1e-7), 0)])
def test_rounding_is_clipped(tmp_path, value, expected):
    assert read(tmp_path, spoilt(value)).train.samples.arrays.image[3, 2, 1, 0] == expected


@pytest.mark.parametrize(
    ("value", "expected", "message"),
    [
        (np.float32(1.0004), 1, r"`train` .*: its values, .* to 1\.0004, were clipped to \[0, 1\]"),
        (np.nan, 0, r"`train` .*: 1 value that is NaN \(0\.05%\) became 0"),
    ],
)
def test_what_is_changed_is_said(tmp_path, value, expected, message):
    with pytest.warns(DataWarning, match=message):
        assert read(tmp_path, spoilt(value)).train.samples.arrays.image[3, 2, 1, 0] == expected


def spoilt(value):
    images = IMAGES.copy()
    images[3, 2, 1] = value
    return images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES * np.nan, "must hold images, but all of its values are NaN"),
        (spoilt(np.inf), "must hold finite numbers, but image 3 has infinity"),
        (spoilt(1.0016), r"must hold values in \[0, 1\], got .* to 1\.0016; scale"),
        (spoilt(255.0), r"must hold values in \[0, 1\], got .* to 255; scale"),
        (spoilt(-0.5), r"must hold values in \[0, 1\], got -0.5 to"),
        (IMAGES[0], r"must have shape \(n, h, w\), .* got \(16, 24\)"),
        (np.zeros((2, 16, 16, 3), np.float32), r"must have shape .* got \(2, 16, 16, 3\)"),
        (np.zeros((16, 16, 3), np.float32), r"at least 8 pixels a side, got shape \(16, 16, 3\)"),
        (IMAGES[:0], r"must hold at least one image, got shape \(0, 16, 24\)"),
        (IMAGES.astype(np.complex64), "must hold real numbers, got complex64"),
        (np.array([None, "x"], dtype=object), "cannot be read: Object arrays"),
    ],
)
def test_wrong_contents_are_named(tmp_path, images, message):
    with pytest.raises(InputError, match=rf"^`train` {re.escape(str(tmp_path / 'train.npy'))} .*{message}"):
        read(tmp_path, images)


def test_splits_of_different_size_are_named(tmp_path):
    with pytest.raises(InputError, match=r"`val` must hold images of the size of those of `train`, \(16, 16\), got"):
        read(tmp_path, IMAGES[:, :, :16])


@pytest.mark.parametrize("shape", ["(2000000000, 1024, 1024)", "(7, 16, 24)"])
def test_a_header_that_promises_more_than_the_file_holds_asks_for_no_memory(tmp_path, shape):
    path, header = tmp_path / "train.npy", f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117)
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + b"\n" + bytes(4 * 6 * 16 * 24))
    with pytest.raises(InputError, match=r"`train` .* cannot be read: its header promises \d+ bytes, but it has 9344\."):
        data.arrays(train=path, val=path, test=path)


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")  # to read it would wait for ever
    for path, reason in (
        (tmp_path / "pipe.npy", "no regular file"),
        ("/dev/zero", "no regular file"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(InputError, match=f"`train` .* cannot be read: it is {reason}"):
            data.arrays(train=path, val=path, test=path)


def test_files_that_are_missing_or_no_array_are_named(tmp_path):
    path = tmp_path / "train.npy"
    with pytest.raises(InputError, match="`train` .* there is no such file"):
        data.arrays(train=path, val=path, test=path)
    for content in (b"", b"not an array"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="`train` .* cannot be read"):
            data.arrays(train=path, val=path, test=path)
    with path.open("wb") as file:
        np.savez(file, IMAGES)
    with pytest.raises(InputError, match="`train` .* archive of several"):
        data.arrays(train=path, val=path, test=path)
