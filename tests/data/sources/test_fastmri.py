"""fastMRI: files in its format, written from known images and coils; their slices, and what is refused."""

import os

import h5py
import numpy as np
import pytest

from hyperrecon_jax.data import kspace as recipe
from hyperrecon_jax.data import population
from hyperrecon_jax.data.sources import fastmri, folder
from hyperrecon_jax.data.sources.base import EMPTY, Settings
from hyperrecon_jax.physics.operators import sense
from hyperrecon_jax.runtime.errors import InputError
from tests.data.test_coils import normal, relative, slow_phase, smooth_coils

IMAGES = (
    population.synthesize_subject(3, size=64, slices=4).images[..., 0].astype(float)[:, ::-1, ::-1]
)  # as files hold them
HEADER = b'<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"></ismrmrdHeader>'
SETTINGS = Settings(size=64, slices=8, coils=0, acquisition="", whiten=False)
COILS = SETTINGS._replace(coils=5)


def fft(images):
    """As fastMRI: image and k-space centred."""
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=axes), norm="ortho"), axes=axes).astype(np.complex64)


def write(path, *, patient="p1", acquisition="CORPD_FBK", **datasets):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = HEADER
        for key, value in datasets.items():
            file[key] = value
        largest = max((float(np.abs(v).max()) for k, v in datasets.items() if k.startswith("reconstruction")), default=1.0)
        file.attrs.update({"acquisition": acquisition, "max": largest, "norm": 2.0})
        if patient is not None:
            file.attrs["patient_id"] = patient
    return path


def multicoil(images, count, *, noise=1e-3, seed=0):
    """K-space `(n, count, h, w)` of scanner units, and the true maps."""
    h, w = images.shape[1:]
    maps = smooth_coils(count, h, w)
    kspace = fft(maps * (slow_phase(h, w) * images)[:, None]) + noise * normal(len(images), count, h, w, seed=seed)
    return (3e-4 * kspace).astype(np.complex64), maps


@pytest.fixture(scope="module")
def knee(tmp_path_factory):
    """A file of five coils, two slices of 64 x 64."""
    kspace, maps = multicoil(IMAGES[1:3], 5)
    path = write(
        tmp_path_factory.mktemp("fastmri") / "file1.h5", kspace=kspace, reconstruction_rss=np.float32(3e-4 * IMAGES[1:3])
    )
    return path, kspace, maps


@pytest.fixture(scope="module")
def measured(knee):
    return fastmri.read([knee[0]], COILS)


def assert_consistent(slices, settings):
    """The contract of a source, and of `Coils`."""
    n, size = len(slices.image), settings.size
    assert (slices.image.shape, slices.image.dtype) == ((n, size, size), np.float32)
    assert slices.image.min() >= 0
    assert slices.image.max() <= 1
    assert slices.label is None
    if settings.coils:
        for array in slices.coils:
            assert (array.shape, array.dtype) == ((n, settings.coils, size, size), np.complex64)
        energy = np.sum(np.abs(slices.coils.maps) ** 2, 1)
        np.testing.assert_allclose(energy, np.rint(energy), atol=1e-5)
        combined = np.sum(np.conj(slices.coils.maps) * np.fft.ifft2(slices.coils.kspace, norm="ortho"), 1)
        np.testing.assert_allclose(np.abs(combined), slices.image, atol=1e-5)
    else:
        assert slices.coils is None


# Subjects


def test_files_of_a_patient_are_one_subject(tmp_path):
    b = write(tmp_path / "train" / "b.h5", patient="p1")
    a = write(tmp_path / "val" / "a.h5", patient="p1", acquisition="CORPDFS_FBK")
    c = write(tmp_path / "train" / "c.H5", patient="p0")
    without_id = [write(tmp_path / folder / "d.h5", patient=None) for folder in ("single", "train")]
    (tmp_path / "notes.txt").write_text("no scan")
    subjects = fastmri.find(tmp_path, SETTINGS)
    assert subjects == {"d.h5": without_id, "p0": [c], "p1": [b, a]}
    assert list(subjects) == ["d.h5", "p0", "p1"]
    assert fastmri.find(tmp_path, SETTINGS._replace(acquisition="CORPDFS_FBK")) == {"p1": [a]}
    with pytest.raises(
        InputError, match=f"`acquisition` must be one of those below {tmp_path}, CORPDFS_FBK, CORPD_FBK, got 'AXT2'"
    ):
        fastmri.find(tmp_path, SETTINGS._replace(acquisition="AXT2"))


def test_a_broken_file_does_not_stop_the_search_but_its_reading(tmp_path):
    good = write(tmp_path / "good.h5", reconstruction_esc=np.float32(IMAGES))
    content = good.read_bytes()
    for name, damaged in (("cut.h5", content[: len(content) // 2]), ("text.h5", b"hello"), ("void.h5", b"")):
        (tmp_path / name).write_bytes(damaged)
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "._good.h5").write_bytes(b"of macOS")
    subjects = fastmri.find(tmp_path, SETTINGS._replace(acquisition="CORPD_FBK"))
    assert set(subjects) == {"p1", "cut.h5", "text.h5", "void.h5", "pipe.h5"}
    with pytest.raises(InputError, match="pipe.h5 must be a regular file, but it is a pipe or a device"):
        fastmri.read(subjects["pipe.h5"], SETTINGS)
    for name in ("cut.h5", "text.h5", "void.h5"):
        for settings in (SETTINGS, COILS):
            with pytest.raises(InputError, match=f"{name} must be a whole HDF5 file, but it cannot be read"):
                fastmri.read(subjects[name], settings)


def test_for_an_empty_folder_the_message_says_where_the_data_are(tmp_path):
    with pytest.raises(InputError, match=r"(?s)must hold the .h5 files of fastMRI.*https://fastmri.med.nyu.edu/"):
        fastmri.find(tmp_path, SETTINGS)


# Images


@pytest.mark.parametrize("key", ["reconstruction_esc", "reconstruction_rss"])
def test_magnitudes_are_flipped_scaled_by_the_file_and_put_on_the_grid(tmp_path, key):
    images = np.zeros((3, 320, 320), np.float32)
    images[1] = np.kron(IMAGES[1], np.ones((5, 5)))
    images[2, 40, 10] = 1.5
    path = write(tmp_path / "a.h5", kspace=fft(images), **{key: images})
    slices = fastmri.read([path], SETTINGS)
    assert_consistent(slices, SETTINGS)
    assert slices.dropped == {EMPTY: 1}
    assert slices.image[1, 64 - 1 - 8, 64 - 1 - 2] > 0.01
    full = fastmri.read([path], SETTINGS._replace(size=320)).image
    np.testing.assert_allclose(full, images[1:, ::-1, ::-1] / 1.5, atol=1e-6)
    # a triangle of twice the new pixel: away from edges it is near the mean over it, which is IMAGES
    assert relative(slices.image[0] * 1.5, IMAGES[1, ::-1, ::-1]) < 0.2
    assert fastmri.read([path], SETTINGS._replace(slices=1)).dropped == {EMPTY: 1}


def test_images_of_any_size_are_used_whole(tmp_path):
    """Their field of view is that of the file: padded to a square, never cut."""
    small = write(tmp_path / "small.h5", reconstruction_rss=1 - 0.5 * np.eye(300, 310, dtype=np.float32)[None])
    image = fastmri.read([small], SETTINGS._replace(size=310)).image[0]
    assert image.sum() == 300 * 310 - 150
    assert image[5:305].all()
    large = write(tmp_path / "large.h5", reconstruction_rss=1 - 0.5 * np.eye(384, dtype=np.float32)[None])
    assert (fastmri.read([large], SETTINGS._replace(size=320)).image >= 0.5).all()


def test_without_reconstructions_images_come_from_kspace(tmp_path):
    kspace, maps = multicoil(IMAGES, 6, noise=0)
    path = write(tmp_path / "a.h5", kspace=kspace)
    image = fastmri.read([path], SETTINGS).image
    expected = IMAGES / IMAGES.max() * np.linalg.norm(maps, axis=0)
    np.testing.assert_allclose(image, expected[:, ::-1, ::-1], atol=1e-5)


def test_slices_of_a_patient_are_spread_over_all_files(tmp_path):
    paths = [
        write(tmp_path / name, reconstruction_esc=np.float32(IMAGES * scale)) for name, scale in (("a.h5", 1), ("b.h5", 9))
    ]
    images = fastmri.read(paths, SETTINGS).image
    assert len(images) == 8
    np.testing.assert_allclose(images[:4], images[4:], atol=1e-6)  # each volume by its own largest value
    subset = fastmri.read(paths, SETTINGS._replace(slices=3)).image
    np.testing.assert_array_equal(subset, images[[0, 3, 7]])


def test_values_are_scaled_as_those_of_a_folder(tmp_path):
    """A hot pixel sets no scale, NaN is background, negative values shift the scale; the notes say so."""
    images = IMAGES.astype(np.float32)
    spoilt = damage(damage(images, 90), np.nan, 9)
    path = write(tmp_path / "a.h5", reconstruction_rss=spoilt)
    slices = fastmri.read([path], SETTINGS)
    expected = images / images.max()
    expected[2].flat[[5, 9]] = 1, 0
    np.testing.assert_allclose(slices.image, expected[:, ::-1, ::-1], atol=1e-6)
    scaled = f"scaled by {images.max():g}, the largest value that is no outlier; 1 outlying value, up to 90, became 0 or 1"
    assert slices.notes == (
        "acquisition CORPD_FBK",
        "its `reconstruction_rss`",
        f"{scaled}; 1 value that is NaN ({1 / images.size:.2%}) became 0",
    )
    for content in (spoilt, images - 1, images + 1j * images):
        path = write(tmp_path / "a.h5", reconstruction_rss=content)
        same = folder.read([path], SETTINGS)
        slices = fastmri.read([path], SETTINGS)
        np.testing.assert_array_equal(slices.image[:, ::-1, ::-1], same.image)
        assert slices._replace(image=0) == same._replace(image=0)


# K-space


def test_kspace_gives_the_image_that_fastmri_gives(tmp_path):
    """One coil, readout twice oversampled: fastMRI's `reconstruction_esc` and the k-space route, pixel by pixel."""
    small = np.kron(IMAGES[1:3], np.ones((4, 4)))
    scan = normal(2, 640, 320) * 0.02
    scan[:, 192:448, 32:288] += small * slow_phase(256, 256)
    kspace = fft(scan)
    esc = np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(1, 2)), norm="ortho"), axes=(1, 2)))
    esc = esc[:, 160:480].astype(np.float32)
    path = write(tmp_path / "a.h5", kspace=kspace, reconstruction_esc=esc)
    settings = SETTINGS._replace(size=320)
    slices = fastmri.read([path], settings._replace(coils=1))
    assert_consistent(slices, settings._replace(coils=1))
    np.testing.assert_allclose(slices.image, fastmri.read([path], settings).image, atol=1e-5)
    np.testing.assert_allclose(np.abs(slices.coils.maps), 1, atol=1e-6)


def test_measured_lines_stay_lines():
    """Phase encodes that the scanner left out are zero afterwards, and those only: nothing is interpolated."""
    lines = (np.arange(72) % 5 != 0) | (np.abs(np.arange(72) - 36) < 16)
    kspace = fft(np.pad(IMAGES, ((0, 0), (0, 0), (4, 4)))) * lines
    for size in (64, 96):
        stored = recipe.virtual_coils(kspace[:, None], field=(64, 72), size=size, flip=True, whiten=False, count=2)
        # the flip turns the line of frequency f into that of -f
        inside = lines[4:68] if size == 64 else np.pad(lines, 12)
        expected = {-int(f) % size for f in (np.arange(size) - size // 2)[inside]}
        assert set(np.flatnonzero(stored.any((0, 1, 2)))) == expected


def test_a_real_image_explains_the_kspace(measured):
    assert_consistent(measured, COILS)
    assert measured.image.max() == 1
    assert measured.dropped == {}
    full_mask = np.ones((64, 64), np.float32)
    for image, kspace, maps in zip(measured.image, *measured.coils, strict=True):
        assert relative(np.asarray(sense(full_mask, maps).measure(image[..., None])), kspace) < 0.05
    true, flipped = IMAGES[1:3], measured.image[:, ::-1, ::-1]
    inside = true > 0.1
    scale = np.sum(flipped[inside] * true[inside]) / np.sum(true[inside] ** 2)
    np.testing.assert_allclose(flipped[inside], scale * true[inside], atol=0.05)


def test_images_and_kspace_show_the_same(measured, knee):
    """Magnitudes as large as the field of view lie where the k-space puts them, seen the same way round."""
    picture = fastmri.read([knee[0]], SETTINGS).image
    assert relative(measured.image, picture * measured.image.max()) < 0.1


@pytest.mark.slow
def test_compressed_and_fewer_and_more_coils(knee):
    path = knee[0]
    few = fastmri.read([path], COILS._replace(coils=3, slices=1))
    assert_consistent(few, COILS._replace(coils=3))
    more = fastmri.read([path], COILS._replace(coils=8, slices=1))
    assert_consistent(more, COILS._replace(coils=8))
    assert more.coils.maps[:, :5].any((0, 2, 3)).all()
    assert not more.coils.maps[:, 5:].any()
    assert not more.coils.kspace[:, 5:].any()
    assert few.image.max() == more.image.max() == 1
    inside = more.image > 0.1
    np.testing.assert_allclose(few.image[inside], more.image[inside], atol=0.05)  # another look at the same image


@pytest.mark.slow
def test_whitened_kspace_has_noise_as_strong_in_all_coils(tmp_path):
    """Noise of coil k of standard deviation 1 + k: the highest frequencies of a smooth image are noise alone."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    smooth = np.exp(-4 * (x**2 + y**2))[None]
    kspace, _ = multicoil(smooth, 4, noise=0)
    kspace = kspace + 3e-7 * np.arange(1, 5)[:, None, None] * normal(1, 4, 64, 64)
    path = write(tmp_path / "a.h5", kspace=kspace.astype(np.complex64))

    def powers(whiten):
        settings = COILS._replace(coils=4, whiten=whiten)
        slices = fastmri.read([path], settings)
        assert_consistent(slices, settings)
        high = np.abs(np.fft.fftfreq(64)) > 0.3
        return np.mean(np.abs(slices.coils.kspace[..., high, :][..., high]) ** 2, (0, 2, 3))

    plain, white = powers(False), powers(True)
    np.testing.assert_allclose(plain / plain[0], np.arange(1, 5) ** 2, rtol=0.25)
    np.testing.assert_allclose(white / white.mean(), 1, atol=0.25)


def test_maps_of_the_file_are_used(knee, tmp_path):
    _, kspace, maps = knee
    stored = np.broadcast_to(3 * maps, kspace.shape).astype(np.complex64)
    path = write(tmp_path / "a.h5", kspace=kspace, sensitivity_maps=stored)
    slices = fastmri.read([path], COILS)
    assert_consistent(slices, COILS)
    assert slices.coils.maps.all()  # ESPIRiT's are zero outside of the head
    alike = np.sum(np.conj(slices.coils.maps) * maps[:, ::-1, ::-1], 1)
    np.testing.assert_allclose(np.abs(alike), 1, atol=1e-4)
    half = fastmri.read([path], COILS._replace(size=32))
    assert_consistent(half, COILS._replace(size=32))
    for settings in (COILS._replace(coils=4), COILS._replace(coils=8), COILS._replace(whiten=True)):
        with pytest.raises(InputError, match="a.h5 has `sensitivity_maps` of its own 5 coils, .* use `coils=5` and"):
            fastmri.read([path], settings)
    wrong = write(tmp_path / "b.h5", kspace=kspace, sensitivity_maps=stored[:, :4])
    with pytest.raises(InputError, match=r"b.h5 must have complex `sensitivity_maps` of shape \(2, 5, 64, 64\)"):
        fastmri.read([wrong], COILS)


@pytest.mark.slow
def test_slices_without_content_are_dropped(knee, tmp_path):
    kspace = np.pad(knee[1][:1], ((1, 2), (0, 0), (0, 0), (0, 0)))
    slices = fastmri.read([write(tmp_path / "a.h5", kspace=kspace)], COILS)
    assert (len(slices.image), slices.dropped) == (1, {EMPTY: 3})
    zeros = write(tmp_path / "b.h5", kspace=0 * kspace, reconstruction_rss=np.zeros((4, 64, 64), np.float32))
    for settings in (SETTINGS, COILS):
        with pytest.raises(InputError, match="b.h5 must show something, but all of its values are equal"):
            fastmri.read([zeros], settings)


@pytest.mark.parametrize(("h", "w", "size"), [(65, 51, 48), (64, 37, 64), (333, 40, 40)])
def test_odd_shapes(tmp_path, h, w, size):
    """The centre of the field of view stays at `size / 2`, before the flip: a point there is seen there."""
    kspace = fft(np.pad(np.ones((1, 1, 1)), ((0, 0), (h // 2, h - h // 2 - 1), (w // 2, w - w // 2 - 1))))
    slices = fastmri.read([write(tmp_path / "a.h5", kspace=kspace)], SETTINGS._replace(size=size, coils=1))
    assert np.unravel_index(np.argmax(slices.image[0]), (size, size)) == (size // 2 - 1, size // 2 - 1)


# Wrong files


def damage(array, value, place=5):
    array = array.copy()
    array[2].flat[place] = value
    return array


WRONG = {
    "nothing": ({}, None, "must have `kspace`, got a file with ismrmrd_header"),
    "masked": ({"kspace": fft(IMAGES), "mask": np.ones(64, bool)}, None, "must be fully sampled, but it has a `mask`"),
    "real kspace": ({"kspace": IMAGES}, None, r"must have complex `kspace` .* got float64 of shape \(4, 64, 64\)"),
    "one slice": ({"kspace": fft(IMAGES[0])}, None, r"must have complex `kspace` .* of shape \(64, 64\)"),
    "NaN": ({"kspace": damage(fft(IMAGES), np.nan)}, None, "must hold finite numbers, but slice 2 has NaN or infinity"),
    "huge": ({"kspace": damage(1 + IMAGES + 0j, 1e300)}, None, "must hold finite numbers, but slice 2 has NaN or infinity"),
    "tiny": ({"kspace": fft(IMAGES) * np.complex64(1e-40)}, 5, "must hold numbers that float32 can hold"),
    "text": ({"kspace": "text"}, None, "must have numbers as `kspace`"),
    "flat": ({"reconstruction_esc": IMAGES[0]}, 0, r"must have `reconstruction_esc` of shape \(slices, h, w\)"),
    "infinite": ({"reconstruction_rss": damage(IMAGES, np.inf)}, 0, "must hold finite numbers, but slice 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_named(tmp_path, name):
    datasets, coils, message = WRONG[name]
    path = write(tmp_path / "a.h5", **datasets)
    for settings in [SETTINGS, COILS] if coils is None else [SETTINGS._replace(coils=coils)]:
        with pytest.raises(InputError, match=f"{path} {message}"):
            fastmri.read(fastmri.find(tmp_path, settings)["p1"], settings)


def test_a_size_too_small_for_maps_is_refused(knee):
    with pytest.raises(InputError, match="`kspace` must be at least `calibration` = 24 samples wide, got 16 x 16"):
        fastmri.read([knee[0]], COILS._replace(size=16))
