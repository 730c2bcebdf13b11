"""K-space as people have it: fastMRI in several matrices, other formats, padding, test files, and what is no k-space."""

import numpy as np
import pytest
from helper import npy_bytes

from hyperrecon_jax.data import kspace as recipe
from hyperrecon_jax.data import volumes
from hyperrecon_jax.data.sources import fastmri, folder
from hyperrecon_jax.data.sources.base import Settings
from hyperrecon_jax.explorer.measurement import inspect_kspace, make_sample
from hyperrecon_jax.runtime.errors import InputError
from tests.faults import kspace_files as files

SIZE = 64
SETTINGS = Settings(size=SIZE, slices=2, coils=0, acquisition="", whiten=False)
KSPACE = files.fft(files.phantom(SIZE, SIZE))[None]  # (n, h, w)
COILS = files.coil_kspace(files.phantom(SIZE, SIZE)[None].repeat(2, 0))  # (n, c, h, w)
LINES = (np.arange(SIZE) % 4 == 0) | (np.abs(np.arange(SIZE) - SIZE // 2) < 8)
SHARE = f"{LINES[:61].mean():.0%}"  # the last three lines are zeros, as padding


def reference(size=SIZE, field=files.FIELD):
    return files.phantom(size, size, height=field, width=field)


def relative(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def scan_file(path, h, w, *, encoded_mm=(440, 220), recon_mm=(220, 220), header=True, **datasets):
    """A fastMRI file of the head seen by one coil, two slices; `encoded_mm` is the field of view of its k-space."""
    image = files.phantom(h, w, height=encoded_mm[0], width=encoded_mm[1])[None].repeat(2, 0)
    recon = tuple(round(side * r / e) for side, r, e in zip((h, w), recon_mm, encoded_mm, strict=True))
    if header:
        datasets["ismrmrd_header"] = files.header((h, w), recon, encoded_mm=encoded_mm, recon_mm=recon_mm)
    return save(path, files.hdf5({"patient_id": "a"}, kspace=files.coil_kspace(image)[:, :1], **datasets))


# The field of view of fastMRI


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("coils", [0, 1])
@pytest.mark.parametrize(("h", "w"), [(160, 80), (192, 99), (128, 53)])
def test_one_head_in_several_matrices(tmp_path, h, w, coils, header):
    """A readout that is oversampled twice: the same anatomy, nothing cut, in images and in coils."""
    path = scan_file(tmp_path / "a.h5", h, w, header=header)
    image = fastmri.read([path], SETTINGS._replace(coils=coils)).image[0]
    np.testing.assert_allclose(files.extent(image), files.extent(reference()), atol=0.02)
    assert relative(image[::-1, ::-1] / image.max(), reference() / reference().max()) < 0.25


@pytest.mark.parametrize(
    ("h", "w", "encoded_mm", "recon_mm", "coil_field"),
    [
        (96, 64, (330, 220), (220, 220), 220),  # oversampled 1.5 times
        (64, 64, (220, 220), (220, 220), 220),  # not oversampled
        (256, 64, (880, 220), (220, 220), 220),  # oversampled four times
        (128, 74, (440, 254), (220, 220), 254),  # phase encodes that go beyond the image
        (128, 52, (440, 180), (220, 180), 220),  # a field of view that is lower than it is wide
    ],
)
def test_field_of_view_by_the_header(tmp_path, h, w, encoded_mm, recon_mm, coil_field):
    path = scan_file(tmp_path / "a.h5", h, w, encoded_mm=encoded_mm, recon_mm=recon_mm)
    image = fastmri.read([path], SETTINGS).image[0]
    np.testing.assert_allclose(files.extent(image), files.extent(reference()), atol=0.03)
    image = fastmri.read([path], SETTINGS._replace(coils=1)).image[0]
    np.testing.assert_allclose(files.extent(image), files.extent(reference(field=coil_field)), atol=0.03)


def test_field_of_view_by_the_images_of_the_file(tmp_path):
    """Images of 96 x 96 cut from k-space of 192 x 104, by fastMRI's way: square pixels."""
    images = np.float32(files.phantom(96, 96))[None].repeat(2, 0)
    mm = (440, 104 * 220 / 96)
    path = scan_file(tmp_path / "a.h5", 192, 104, encoded_mm=mm, header=False, reconstruction_rss=images)
    plain = fastmri.read([path], SETTINGS).image[0]
    np.testing.assert_allclose(files.extent(plain), files.extent(reference()), atol=0.02)
    coils = fastmri.read([path], SETTINGS._replace(coils=1)).image[0]
    np.testing.assert_allclose(files.extent(coils), files.extent(reference(field=mm[1])), atol=0.02)
    volume = volumes.read("a.h5", path.read_bytes(), kind="kspace")
    assert volume.slices.shape == (2, 96, 104)


@pytest.mark.parametrize(("h", "w"), [(160, 80), (192, 99), (128, 53)])
def test_images_of_the_file_that_show_all_phase_encodes(tmp_path, h, w):
    """Not cut from the k-space's image, but on pixels of their own."""
    sensitivity = 0.7 + 0.5 * (np.arange(h // 2) - h // 4) / (h // 2)
    images = np.float32(sensitivity * files.phantom(h // 2, h // 2))[None].repeat(2, 0)
    path = scan_file(tmp_path / "a.h5", h, w, header=False, reconstruction_esc=images)
    for coils in (0, 1):
        image = fastmri.read([path], SETTINGS._replace(coils=coils)).image[0]
        np.testing.assert_allclose(files.extent(image), files.extent(reference()), atol=0.02)


def test_a_header_that_cannot_be_read_counts_as_none(tmp_path):
    expected = fastmri.read([scan_file(tmp_path / "a.h5", 160, 80, header=False)], SETTINGS).image
    for text in (
        "<xml",
        "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
        "<a/>",
        files.header((1, 1), (0, 0), encoded_mm=(0, 0), recon_mm=(-1, 0)),
    ):
        path = scan_file(tmp_path / "b.h5", 160, 80, header=False, ismrmrd_header=text)
        np.testing.assert_array_equal(fastmri.read([path], SETTINGS).image, expected)


def test_the_page_leaves_out_the_oversampled_rows(tmp_path):
    """Only those; under-sampled columns stay as they were sampled."""
    path = scan_file(tmp_path / "a.h5", 128, 64)
    volume = volumes.read("a.h5", path.read_bytes(), kind="kspace")
    assert volume.slices.shape == (2, 64, 64)
    image = np.abs(np.fft.ifft2(volume.slices[0], norm="ortho"))
    np.testing.assert_allclose(files.extent(image), files.extent(reference()), atol=0.02)
    kspace = files.fft(files.oversampled(128, 64))[None] * LINES
    volume = volumes.read("a.h5", files.hdf5(kspace=kspace), kind="kspace")
    np.testing.assert_array_equal((volume.slices != 0).any((0, 1)), np.fft.ifftshift(LINES))
    spots = np.random.default_rng(0).random((128, 64)) < 0.3  # no whole lines: rows cannot be left out
    volume = volumes.read("a.h5", files.hdf5(kspace=kspace * spots), kind="kspace")
    assert volume.slices.shape == (1, 128, 64)
    assert ((volume.slices != 0) <= np.fft.ifftshift(spots)).all()


# Padding, and what holds no truth


@pytest.mark.parametrize("zeros", [(slice(0, 6), slice(-6, None)), (slice(0, 9), slice(-3, None)), (slice(0, 16),)])
def test_zeros_at_the_ends_are_padding(tmp_path, zeros):
    padded = COILS.copy()
    for part in zeros:
        padded[..., part] = 0
    single = volumes.read("a.npy", npy_bytes(padded[:, 0]))
    measured = inspect_kspace("a.npy", single.slices, no_truth=single.no_truth)
    assert (single.kind, single.no_truth, measured.is_full) == ("kspace", "", True)
    assert "lines of zeros at its ends are the scanner's padding" in measured.notes
    path = save(tmp_path / "a.h5", files.hdf5({"padding_left": 6, "padding_right": 58}, kspace=padded[:, :1]))
    for coils in (0, 1):
        assert len(fastmri.read([path], SETTINGS._replace(coils=coils)).image) == 2


def test_the_share_of_sampled_frequencies():
    full = np.ones((20, 30), bool)
    assert recipe.sampled_share(full) == 1
    assert recipe.sampled_share(np.pad(full, ((0, 4), (5, 5)))) == 1
    assert recipe.sampled_share(np.pad(full, ((0, 0), (20, 20)))) == 30 / 70  # the middle alone is no full k-space
    assert recipe.sampled_share(np.pad(full[:, :15], ((0, 0), (5, 5)))) == 1
    assert recipe.sampled_share(np.arange(30) % 2 * full > 0) == 15 / 29
    assert recipe.sampled_share(~full) == 0


MASK = {"kspace": KSPACE * LINES, "mask": LINES}
IMAGES = {"reconstruction_rss": np.abs(np.fft.ifft2(KSPACE)).astype(np.float32)}


@pytest.mark.parametrize(
    ("datasets", "reason"),
    [
        (MASK, "it has a `mask`"),
        ({"kspace": KSPACE * LINES}, f"{SHARE} of its k-space was measured"),
        ({**MASK, **IMAGES}, "it has a `mask`"),
        ({"kspace": KSPACE * LINES, **IMAGES}, f"{SHARE} of its k-space was measured"),
    ],
)
def test_under_sampled_files_hold_no_truth(tmp_path, datasets, reason):
    """Nothing trains on them, and the page opens them as what was measured."""
    path = save(tmp_path / "a" / "a.h5", files.hdf5(**datasets))
    for source in (fastmri, folder):
        for coils in (0, 1):
            with pytest.raises(InputError, match=f"a.h5 must be fully sampled, but {reason}") as error:
                source.read([path], SETTINGS._replace(coils=coils))
            assert str(error.value).count(". ") == 0
    for kind in ("image", "kspace"):
        volume = volumes.read("a.h5", path.read_bytes(), kind=kind)
        measured = inspect_kspace("a.h5", volume.slices, no_truth=volume.no_truth)
        assert (volume.kind, measured.is_full) == ("kspace", False)
        assert any(f"no scores against a truth: {reason}" in note for note in measured.notes)


def test_one_under_sampled_slice_is_enough():
    kspace = np.stack([files.fft(files.phantom(64, 64))] * 3)
    kspace[0, :, ::2] = 0
    volume = volumes.read("k.npy", npy_bytes(kspace), kind="kspace")
    assert volume.no_truth == "51% of its k-space was measured, so it holds no truth"


def test_kspace_with_its_zero_frequency_in_the_corner_is_refused():
    kspace = np.fft.fft2(files.phantom(64, 48)).astype(np.complex64)[None]
    for kind in ("image", "kspace"):
        with pytest.raises(InputError, match="k.npy must have the zero frequency of its k-space in the middle"):
            volumes.read("k.npy", npy_bytes(kspace), kind=kind)
    assert volumes.read("k.npy", npy_bytes(np.fft.fftshift(kspace, (1, 2))), kind="kspace").kind == "kspace"


def test_a_mask_is_believed_even_where_zeros_were_filled(tmp_path):
    content = files.hdf5(kspace=KSPACE, mask=LINES)
    volume = volumes.read("a.h5", content)
    assert not inspect_kspace("a.h5", volume.slices, no_truth=volume.no_truth).is_full
    with pytest.raises(InputError, match="must be fully sampled, but it has a `mask`"):
        fastmri.read([save(tmp_path / "a.h5", content)], SETTINGS)


def test_links_are_followed_and_loops_are_not(tmp_path):
    scan_file(tmp_path / "real" / "file1.h5", 64, 32)
    root = tmp_path / "root"
    root.mkdir()
    (root / "singlecoil_train").symlink_to("../real", target_is_directory=True)
    (root / "again").symlink_to("../real", target_is_directory=True)
    (tmp_path / "real" / "up").symlink_to("..", target_is_directory=True)
    assert fastmri.find(root, SETTINGS) == {"a": [root / "again" / "file1.h5"]}


# What complex numbers are


def test_complex_arrays_are_told_apart():
    rng = np.random.default_rng(0)
    kspace = volumes.read("a.npy", npy_bytes(KSPACE))
    assert kspace.kind == "kspace"
    assert "these are no images, so they were opened as measured k-space" in kspace.note
    assert volumes.read("a.npy", npy_bytes(COILS)).slices.shape == COILS.shape
    assert volumes.read("a.npy", npy_bytes(KSPACE * LINES)).no_truth.startswith(SHARE)
    image = reference() * np.exp(1j * np.cumsum(rng.normal(size=SIZE)) * 0.1)
    for noise in (0, 0.05):
        values = image + noise * (rng.normal(size=image.shape) + 1j * rng.normal(size=image.shape))
        volume = volumes.read("a.npy", npy_bytes(values))
        assert volume.kind == "image"
        np.testing.assert_allclose(volume.slices[0], np.abs(values) / np.abs(values).max(), atol=1e-6)
    pair = volumes.read("a.npy", npy_bytes(np.stack([image, 1j * image])[None]))
    np.testing.assert_allclose(pair.slices[0], reference() / reference().max(), atol=1e-6)


def test_complex_images_in_matlab_and_bart():
    head = reference()
    image = np.stack([head, head / 2]) * np.exp(0.3j)  # two slices
    expected = np.abs(image) / np.abs(image).max()
    cfl, hdr = files.bart(image[0])
    volume_cfl, volume_hdr = files.bart(np.moveaxis(image, 0, 2))
    coils_cfl, coils_hdr = files.bart((image[:1] * np.array([0.6, 0.8j])[:, None, None]).transpose(1, 2, 0)[:, :, None])
    for name, content, slices in (
        ("a.mat", files.matlab_5(recon=image[0]), expected[:1]),
        ("a.mat", files.matlab_7(recon=np.moveaxis(image, 0, 2)), expected),
        ("a.zip", files.zipped(a_cfl=cfl, a_hdr=hdr), expected[:1]),
        ("a.zip", files.zipped(a_cfl=volume_cfl, a_hdr=volume_hdr), expected),
        ("a.zip", files.zipped(a_cfl=coils_cfl, a_hdr=coils_hdr), expected[:1]),
    ):
        volume = volumes.read(name, content)
        assert volume.kind == "image"
        np.testing.assert_allclose(volume.slices, slices, atol=1e-6)
        assert volumes.read(name, content, kind="kspace").kind == "kspace"


@pytest.mark.parametrize("names", [("r", "i"), ("real", "imag"), ("Re", "Im")])
def test_complex_numbers_as_fields(names):
    fields = np.empty(COILS.shape, [(name, "<f4") for name in names])
    fields[names[0]], fields[names[1]] = COILS.real, COILS.imag
    expected = volumes.read("a.npy", npy_bytes(COILS), kind="kspace").slices
    for content in (files.hdf5(kspace=fields), npy_bytes(fields)):
        np.testing.assert_allclose(volumes.read("a", content, kind="kspace").slices, expected, atol=1e-6)


# Other formats


def xml(samples=2 * SIZE, rows=SIZE, **options):
    return files.header((samples, rows), (SIZE, SIZE), encoded_mm=(440, 220), recon_mm=(220, 220), **options)


RAW = files.coil_kspace(files.oversampled(2 * SIZE, SIZE)[None].repeat(2, 0))


@pytest.mark.parametrize(
    "content",
    [
        files.ismrmrd(RAW, xml()),
        files.ismrmrd(RAW, xml(centre=40), centre=40, averages=2, group="scan"),
        files.ismrmrd(RAW, xml(), reverse=range(0, SIZE, 2), extra=False),
    ],
    ids=["plain", "averages", "reverse"],
)
def test_ismrmrd(content):
    """As the fastMRI file of the same k-space."""
    header = xml()
    expected = volumes.read("a.h5", files.hdf5(kspace=RAW, ismrmrd_header=header), kind="kspace")
    volume = volumes.read("a.h5", content, kind="kspace")
    np.testing.assert_allclose(volume.slices, expected.slices, atol=1e-5)
    np.testing.assert_allclose(volume.affine, np.diag([220 / 64, 220 / 64, 1, 1]))


def test_ismrmrd_partial_lines_and_planes(tmp_path):
    """A partial encoding is padding; every second line missing is not; planes become slices."""
    volume = volumes.read("a.h5", files.ismrmrd(RAW, xml(), skipped=range(16)), kind="kspace")
    assert volume.no_truth == ""
    skipped = set(range(1, SIZE, 2)) - set(range(24, 40))
    volume = volumes.read("a.h5", files.ismrmrd(RAW, xml(), skipped=skipped))
    assert volume.no_truth == f"{1 - (len(skipped) - 1) / 63:.0%} of its k-space was measured, so it holds no truth"
    head = np.linspace(0.5, 1, 4)[:, None, None] * files.oversampled(2 * SIZE, SIZE)
    planes = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(head, axes=0), axis=0, norm="ortho"), axes=0)
    content = files.ismrmrd(files.coil_kspace(planes).transpose(1, 0, 2, 3)[None], xml(planes=4), extra=False)
    volume = volumes.read("a.h5", content, kind="kspace")
    images = np.linalg.norm(np.fft.ifft2(volume.slices, norm="ortho"), axis=1)
    np.testing.assert_allclose(images.max((1, 2)), np.linspace(0.5, 1, 4), atol=0.01)
    path = save(tmp_path / "a.h5", files.ismrmrd(RAW, xml()))
    for source in (fastmri, folder):
        image = source.read([path], SETTINGS).image[0]
        np.testing.assert_allclose(files.extent(image), files.extent(reference()), atol=0.02)


def test_wrong_ismrmrd_is_named():
    small = RAW[:1, :, :, ::4]
    for content, message in [
        (
            files.ismrmrd(small, xml(rows=16, trajectory="spiral")),
            "must hold Cartesian k-space, but its header says 'spiral'",
        ),
        (files.ismrmrd(small, "<a/>"), "must have a header with the matrix of the encoding"),
        (files.ismrmrd(small, xml(rows=4)), "must hold lines inside of its encoded matrix 128 x 4 x 1"),
        (
            files.ismrmrd(small, xml(rows=16), skipped=range(16)),
            "must hold lines of image data, but it has 3 of other kinds",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            volumes.read("a.h5", content, kind="kspace")


MATLAB = COILS.transpose(2, 3, 1, 0)  # (h, w, coils, slices)
CFL, HDR = files.bart(COILS[0].transpose(1, 2, 0)[:, :, None])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.mat", files.matlab_5(kspace=MATLAB, mask=1.0), COILS),
        ("a.mat", files.matlab_5(other=np.zeros((9, 9)), ksp=MATLAB[..., 0]), COILS[:1]),
        ("a.mat", files.matlab_5(anything=MATLAB[:, :, 0, 0]), COILS[:1, 0]),
        ("a.mat", files.matlab_7(kspace=MATLAB), COILS),
        ("a.mat", files.matlab_7(Kspace=MATLAB[..., 0], names=np.zeros(3)), COILS[:1]),
        ("a.zip", files.zipped(a_cfl=CFL, a_hdr=HDR), COILS[:1]),
        ("a.zip", files.zipped(a_cfl=CFL, a_hdr=files.bart(COILS[0], sides=[1, 64, 64, 2])[1]), COILS[:1]),
    ],
)
def test_matlab_and_bart(name, content, expected):
    expected = volumes.read("a.npy", npy_bytes(expected), kind="kspace")
    for kind in ("image", "kspace"):
        volume = volumes.read(name, content, kind=kind)
        assert volume.kind == "kspace"
        np.testing.assert_allclose(volume.slices, expected.slices, atol=1e-5)


def test_matlab_images_and_doubt():
    images = np.stack([reference(), reference() / 2], -1)
    np.testing.assert_allclose(volumes.read("a.mat", files.matlab_5(x=images)).slices[1], images[..., 1] / images.max())
    for make in (files.matlab_5, files.matlab_7):
        with pytest.raises(InputError, match=r"must hold one array, or one of the name `kspace`, got a \(.*, b \("):
            volumes.read("a.mat", make(a=MATLAB[..., 0], b=MATLAB[..., 0]))
        with pytest.raises(InputError, match="must hold one array, or one of the name `kspace`, got none"):
            volumes.read("a.mat", make(a=np.zeros((2, 2))))
        with pytest.raises(InputError, match="a.mat must hold complex numbers to be k-space, got float64"):
            volumes.read("a.mat", make(a=images), kind="kspace")
    with pytest.raises(InputError, match="must be a whole MATLAB file"):
        volumes.read("a.mat", files.matlab_5(a=MATLAB)[:5000])


def test_wrong_bart_is_named():
    for content, message in [
        (files.zipped(a_cfl=CFL, b_hdr=HDR), "must hold one pair NAME.cfl and NAME.hdr, got a.cfl, b.hdr"),
        (files.zipped(a_cfl=CFL[:-8], a_hdr=HDR), "must be a whole file of 65536 bytes, but it ends after 65528"),
        (files.zipped(a_cfl=CFL, a_hdr=b"# Command"), "must have a BART header with the line '# Dimensions'"),
        (files.zipped(a_cfl=CFL, a_hdr=b"# Dimensions\n64 64 1 1 2\n"), "got dimension 4 of 2"),
    ]:
        with pytest.raises(InputError, match=f"a.zip .*{message}"):
            volumes.read("a.zip", content)
    with pytest.raises(InputError, match="a.cfl must come with its other half: NAME.cfl and NAME.hdr belong together"):
        volumes.read("a.cfl", CFL)
    with pytest.raises(InputError, match="a.hdr must come with its other half"):
        volumes.read("a.hdr", HDR)


def test_a_folder_of_kspace(tmp_path):
    """Of every format: magnitude images, or samples of coils."""
    kspace = COILS[:1, :1]
    numbers, head = files.bart(kspace[0, 0, :, :, None])
    for name, content in [
        ("a.npy", npy_bytes(kspace)),
        ("b.mat", files.matlab_7(kspace=kspace.transpose(2, 3, 1, 0))),
        ("c.cfl", numbers),
        ("c.hdr", head),
        ("d.h5", files.hdf5(kspace=kspace)),
        ("e.zip", files.zipped(a_cfl=numbers, a_hdr=head)),
    ]:
        save(tmp_path / name, content)
    subjects = folder.find(tmp_path, SETTINGS)
    assert list(subjects) == ["a", "b", "c", "d", "e.zip"]
    images, coils = ([folder.read(paths, SETTINGS._replace(coils=c)) for paths in subjects.values()] for c in (0, 1))
    for plain, measured in zip(images, coils, strict=True):
        np.testing.assert_allclose(plain.image, images[0].image, atol=1e-5)
        np.testing.assert_allclose(files.extent(plain.image[0]), files.extent(reference()), atol=0.02)
        np.testing.assert_allclose(measured.image, plain.image, atol=1e-5)
        assert measured.coils.kspace.shape == (1, 1, SIZE, SIZE)
    save(tmp_path / "f.npy", npy_bytes(COILS * LINES))
    with pytest.raises(InputError, match=f"f.npy must be fully sampled, but {SHARE} of its k-space was measured"):
        folder.read([tmp_path / "f.npy"], SETTINGS)


# Bad k-space


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k: 0 * k, "must hold k-space of an image, but the largest value of the image is 0"),
        (lambda k: np.where(k == k[0, 5, 5], np.nan, k), "must hold finite numbers, but slice 0 has NaN or infinity"),
        (lambda k: np.where(k == k[0, 5, 5], np.inf, k), "must hold finite numbers, but slice 0 has NaN or infinity"),
        (lambda k: k.real, "must hold complex numbers to be k-space, got float32"),
        (lambda k: k[:, :, :0], "must hold slices of 8 to 2048 pixels a side"),
    ],
    ids=["zeros", "NaN", "infinity", "real", "empty"],
)
def test_bad_kspace_is_named(change, message):
    bad = change(KSPACE)
    with pytest.raises(InputError, match=message):
        volumes.read("a.npy", npy_bytes(bad), kind="kspace")
    with pytest.raises(InputError, match=message):
        volumes.read("a.h5", files.hdf5(kspace=bad), kind="kspace") if np.iscomplexobj(bad) else volumes.read(
            "a.npy", npy_bytes(bad), kind="kspace"
        )


def test_one_sample_and_one_line_are_shown_without_a_truth():
    for mask in (np.arange(SIZE) == SIZE // 2, LINES & (np.arange(SIZE) > SIZE // 2 - 2)):
        for rows in (np.ones(SIZE, bool), np.arange(SIZE) == SIZE // 2):
            volume = volumes.read("a.npy", npy_bytes(KSPACE * mask * rows[:, None]), kind="kspace")
            measured = inspect_kspace("a.npy", volume.slices, no_truth=volume.no_truth)
            assert not measured.is_full
            assert np.isfinite(make_sample(measured, 0).image).all()
