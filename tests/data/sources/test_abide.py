"""FreeSurfer's volumes of ABIDE, written here with nibabel: subjects, slices, and the message for each mistake."""

import os
import re

import nibabel
import numpy as np
import pytest

from hyperrecon_jax.data import population
from hyperrecon_jax.data.sources import abide
from hyperrecon_jax.data.sources.base import EMPTY, Settings
from hyperrecon_jax.physics.sample import LABELS
from hyperrecon_jax.runtime.errors import InputError

SIZE = 32
SETTINGS = Settings(size=SIZE, slices=100, coils=0, acquisition="", whiten=False)
SUBJECT = population.synthesize_subject(0, size=SIZE, slices=8)
IMAGES = np.rint(SUBJECT.images[..., 0] / SUBJECT.images.max() * 255).astype(np.uint8)
CODES_OF = {  # label -> codes of aseg, as FreeSurferColorLUT names the structures
    1: [8, 10, 11, 12, 13, 17, 18, 26, 28, 47, 49, 50, 51, 52, 53, 54, 58, 60],
    2: [2, 7, 16, 41, 46, 77, 85, 251, 252, 253, 254, 255],
    3: [4, 5, 14, 15, 24, 31, 43, 44, 63, 72],
    4: [3, 42],
    0: [0, 30, 62, 80],  # unknown, vessels, non-white-matter hypointensities
}
CODES = sum(np.random.default_rng(k).choice(CODES_OF[k], SUBJECT.labels.shape) * (SUBJECT.labels == k) for k in range(5))
LIA = np.array([[-1.0, 0, 0, 16], [0, 0, 1, -16], [0, -1, 0, 4], [0, 0, 0, 1]])  # as mri_convert --conform writes


def lia(slices):
    """Axial slices, anterior up and left on the left, as a file stores them: to the left, to the foot, to the front."""
    right_front_top = np.stack([np.rot90(image, -1) for image in slices], axis=-1)
    return right_front_top[::-1, :, ::-1].transpose(0, 2, 1)


def write(folder, *, images=IMAGES, codes=CODES, image="norm.mgz", labels="aseg.mgz", affine=LIA, codes_affine=None):
    folder.mkdir(parents=True, exist_ok=True)
    codes_affine = affine if codes_affine is None else codes_affine
    for name, slices, position in ((image, images, affine), (labels, codes, codes_affine)):
        if slices is not None:
            form = nibabel.MGHImage if ".mg" in name else nibabel.Nifti1Image
            values = slices if slices.dtype.kind == "f" else slices.astype(np.uint8)
            nibabel.save(form(lia(values), position), folder / name)


def read(root, settings=SETTINGS):
    ((_, files),) = abide.find(root, settings).items()
    return abide.read(files, settings)


@pytest.mark.parametrize("extension", [".mgz", ".mgh", ".nii.gz", ".nii"])
@pytest.mark.parametrize("image", ["norm", "brain"])
def test_a_conformed_volume_gives_its_axial_slices(tmp_path, image, extension):
    write(tmp_path / "Pitt_0050003/mri", image=image + extension, labels="aseg" + extension)
    slices = read(tmp_path)
    assert slices.coils is None
    assert slices.dropped == {EMPTY: 0}
    assert slices.image.dtype == np.float32
    assert slices.label.dtype == np.uint8
    np.testing.assert_allclose(slices.image, IMAGES / np.float32(255), atol=1e-7)
    np.testing.assert_array_equal(slices.label, SUBJECT.labels)


def test_slices_are_those_of_nibabel(tmp_path):
    write(tmp_path / "s", affine=LIA @ np.diag([-1, 1, 1, 1]))  # stored from left to right, and so mirrored
    stored = nibabel.as_closest_canonical(nibabel.load(tmp_path / "s/norm.mgz")).get_fdata()
    expected = np.stack([np.rot90(stored[:, :, z]) for z in range(8)]) / stored.max()
    np.testing.assert_allclose(read(tmp_path).image, expected, atol=1e-7)
    np.testing.assert_allclose(expected, IMAGES[:, :, ::-1] / 255, atol=1e-7)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SLA"])
def test_orientation_of_the_file_does_not_matter(tmp_path, axes):
    """Nor need the labels be stored as the image is."""
    write(tmp_path / "s")
    path = tmp_path / "s/norm.mgz"
    stored = nibabel.load(path)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(stored.affine), nibabel.orientations.axcodes2ornt(axes)
    )
    turned = stored.as_reoriented(turn)
    assert "".join(nibabel.aff2axcodes(turned.affine)) == axes
    nibabel.save(turned, path)
    slices = read(tmp_path)
    np.testing.assert_allclose(slices.image, IMAGES / np.float32(255), atol=1e-7)
    np.testing.assert_array_equal(slices.label, SUBJECT.labels)


@pytest.mark.parametrize("label", range(5))
def test_each_code_of_each_group(tmp_path, label):
    codes = np.full(IMAGES.shape, 2)
    codes[:, 4, : len(CODES_OF[label])] = CODES_OF[label]
    write(tmp_path / "s", codes=codes)
    expected = np.full(IMAGES.shape, LABELS.index("white matter"))
    expected[:, 4, : len(CODES_OF[label])] = label
    np.testing.assert_array_equal(read(tmp_path).label, expected)


def test_codes_beyond_aseg_are_background(tmp_path):
    codes = CODES.astype(np.float32)
    codes[:, 0, :3] = [-3, 256, 1001]
    write(tmp_path / "s", codes=codes)
    np.testing.assert_array_equal(read(tmp_path).label, SUBJECT.labels * (codes == CODES))
    write(tmp_path / "s", codes=(CODES + 0.5).astype(np.float32))
    with pytest.raises(InputError, match=r"aseg\.mgz must hold whole numbers, codes of tissues, but slice 0 has others"):
        read(tmp_path)


def test_slices_of_background_alone_are_dropped_and_the_rest_is_spread(tmp_path):
    images, codes = IMAGES.copy(), CODES.copy()
    images[0], codes[0] = 0, 0
    images[1] = 0
    codes[7] = 62
    write(tmp_path / "s", images=images, codes=codes)
    slices = read(tmp_path)
    assert slices.dropped == {EMPTY: 3}
    np.testing.assert_array_equal(slices.label, SUBJECT.labels[2:7])
    np.testing.assert_allclose(slices.image, images[2:7] / np.float32(images.max()), atol=1e-7)
    few = read(tmp_path, SETTINGS._replace(slices=3))
    np.testing.assert_array_equal(few.label, SUBJECT.labels[[2, 4, 6]])
    np.testing.assert_array_equal(few.image, slices.image[[0, 2, 4]])
    assert few.dropped == {EMPTY: 3}


def test_the_scale_is_the_largest_value_even_of_a_dropped_slice(tmp_path):
    images, codes = IMAGES * np.float32(0.4) - 5, CODES.copy()
    images[0, 3, 3], codes[0] = images.max() * 1.5, 0
    write(tmp_path / "s", images=images, codes=codes)
    np.testing.assert_allclose(read(tmp_path).image, images[1:].clip(0) / images.max(), atol=1e-7)


def test_outliers_and_values_that_are_missing(tmp_path):
    images = IMAGES.astype(np.float32)
    images[0, 3, 3], images[1, 2, 2:4] = 9.0 * IMAGES.max(), np.nan
    write(tmp_path / "s", images=images)
    expected = (np.nan_to_num(images) / IMAGES.max()).clip(0, 1)
    slices = read(tmp_path)
    np.testing.assert_allclose(slices.image, expected[CODES.any((1, 2))], atol=1e-7)
    plane, note = slices.notes
    assert plane.startswith("axial slices along")
    assert "1 outlying value" in note
    assert "2 values that are NaN" in note


def test_other_sizes(tmp_path):
    write(tmp_path / "s")
    slices = read(tmp_path, SETTINGS._replace(size=16))
    assert slices.image.shape == slices.label.shape == (8, 16, 16)
    np.testing.assert_array_equal(slices.label, SUBJECT.labels[:, 1::2, 1::2])
    weights = np.zeros((16, 34))  # a triangle four pixels wide
    for k in range(16):
        weights[k, 2 * k : 2 * k + 4] = 0.125, 0.375, 0.375, 0.125
    padded = np.pad(IMAGES / 255, [(0, 0), (1, 1), (1, 1)], mode="constant")
    np.testing.assert_allclose(slices.image, weights @ padded @ weights.T, atol=1e-6)  # the border is background


def test_voxels_that_are_not_cubes(tmp_path):
    """Rows of the slices run along the file's third axis, here of 2 mm: half as many cover the same brain."""
    affine = LIA @ np.diag([1, 1, 2, 1])
    write(tmp_path / "s", images=IMAGES[:, ::2], codes=CODES[:, ::2], affine=affine)
    slices = read(tmp_path)
    np.testing.assert_array_equal(slices.label, SUBJECT.labels[:, ::2].repeat(2, axis=1))
    assert np.corrcoef(slices.image.ravel(), IMAGES.ravel())[0, 1] > 0.9


def test_subjects_of_a_folder(tmp_path):
    write(tmp_path / "pitt/Pitt_0050004/mri")
    write(tmp_path / "pitt/Pitt_0050004/mri", image="brain.mgz")  # norm comes first
    write(tmp_path / "pitt/Pitt_0050004/mri", image="norm.nii.gz")  # and .mgz
    write(tmp_path / "NYU_0050952", image="brain.nii.gz", labels="aseg.nii")
    write(tmp_path / "fsaverage/mri")
    (tmp_path / "pitt/Pitt_0050004/mri/orig").mkdir()
    (tmp_path / "pitt/Pitt_0050004/surf").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    os.symlink(tmp_path, tmp_path / "pitt/loop")
    subjects = abide.find(tmp_path, SETTINGS)
    assert list(subjects) == ["NYU_0050952", "Pitt_0050004"]
    assert subjects["NYU_0050952"] == [tmp_path / "NYU_0050952/brain.nii.gz", tmp_path / "NYU_0050952/aseg.nii"]
    mri = tmp_path / "pitt/Pitt_0050004/mri"
    assert subjects["Pitt_0050004"] == [mri / "norm.mgz", mri / "aseg.mgz"]
    assert list(abide.find(mri, SETTINGS)) == ["Pitt_0050004"]


def test_links_are_followed_and_name_the_subject(tmp_path):
    write(tmp_path / "data/x/mri")
    (tmp_path / "root").mkdir()
    os.symlink(tmp_path / "data/x", tmp_path / "root/NYU_0050952")
    assert list(abide.find(tmp_path / "root", SETTINGS)) == ["NYU_0050952"]


def test_a_subject_twice_is_refused(tmp_path):
    write(tmp_path / "a/Pitt_0050003/mri")
    write(tmp_path / "b/Pitt_0050003")
    with pytest.raises(InputError, match=r"Pitt_0050003 is in .*a/Pitt_0050003/mri and in .*b/Pitt_0050003;"):
        abide.find(tmp_path, SETTINGS)


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"gone must be a folder, but there is none"):
        abide.find(tmp_path / "gone", SETTINGS)
    with pytest.raises(
        InputError, match=r"must hold subjects as SUBJECT/mri/norm\.mgz .*, but there is none; http\S+/abide has"
    ):
        abide.find(tmp_path, SETTINGS)
    write(tmp_path / "s/mri", codes=None)
    with pytest.raises(
        InputError, match=r"s/mri must hold the labels aseg\.mgz beside norm\.mgz, but the labels are missing"
    ):
        read(tmp_path)
    write(tmp_path / "s/mri", labels="aseg.mgz")
    (tmp_path / "s/mri/norm.mgz").unlink()
    with pytest.raises(InputError, match=r"s/mri must hold the image norm\.mgz or brain\.mgz, but it is missing"):
        read(tmp_path)


def test_no_kspace(tmp_path):
    write(tmp_path / "s")
    with pytest.raises(InputError, match=r"ABIDE must be read with 0 coils, as it has no k-space, got 4"):
        read(tmp_path, SETTINGS._replace(coils=4))


ELSEWHERE = LIA + np.array([[0, 0, 0, 1], [0] * 4, [0] * 4, [0] * 4])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(codes=CODES[:-1]), r"aseg\.mgz must have the voxels of norm\.mgz, but it has \(7, 32, 32\)"),
        (dict(codes_affine=ELSEWHERE), r"aseg\.mgz must have the voxels of norm\.mgz, .*, elsewhere"),
        (dict(codes=np.ones_like(CODES)), r"aseg\.mgz must hold codes of FreeSurfer's aseg, such as"),
        (dict(images=np.zeros_like(IMAGES)), r"aseg\.mgz must hold codes .* where norm\.mgz is above 0"),
        (dict(images=np.where(IMAGES > 250, np.inf, IMAGES)), r"norm\.mgz must hold finite numbers, but slice \d has inf"),
        (dict(codes=np.where(CODES > 50, np.inf, CODES)), r"aseg\.mgz must hold finite numbers, but slice \d has inf"),
        (dict(codes=np.where(CODES > 50, np.nan, CODES)), r"aseg\.mgz must hold whole numbers"),
        (dict(images=IMAGES[:, :4, :4], codes=CODES[:, :4, :4]), r"norm\.mgz must hold axial slices of 8 to"),
    ],
)
def test_files_that_do_not_fit(tmp_path, changes, message):
    changes = {
        key: value.astype(np.float32) if np.asarray(value).dtype.kind == "f" else value for key, value in changes.items()
    }
    write(tmp_path / "s", **changes)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_damaged_files(tmp_path):
    write(tmp_path / "s")
    path = tmp_path / "s/norm.mgz"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"s/norm\.mgz must be a whole MGH file"):
        read(tmp_path)
    with path.open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(InputError, match=r"s/norm\.mgz must be a volume in the MGH or NIfTI format"):
        read(tmp_path)
    path.unlink()
    os.symlink(tmp_path / "nothing", path)
    with pytest.raises(InputError, match=r"s/norm\.mgz must be a file that can be read: .*No such file"):
        read(tmp_path)


def test_the_instructions_lead_to_a_subject(tmp_path):
    names = re.findall(r"ROOT/<FILE_ID>/(mri/\w+\.mgz)", abide.INSTRUCTIONS)
    write(tmp_path / "Pitt_0050003/mri", image="norm.mgz", labels="aseg.mgz")
    assert abide.find(tmp_path, SETTINGS) == {"Pitt_0050003": [tmp_path / "Pitt_0050003" / name for name in names]}
