"""A scan as people have it: planes and frames after the upload, whose it is, exports with geometry, bounded memory."""

import csv
import gzip
import io
import json
import resource
import zipfile

import nibabel
import numpy as np
import pytest
from helper import npy_bytes, run_python, write_explorable
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat

from hyperrecon_jax.data.volumes import geometry
from hyperrecon_jax.explorer import exporting
from hyperrecon_jax.explorer.engine import Engine
from hyperrecon_jax.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("small_network")

RNG = np.random.default_rng(0)
HEAD = RNG.random((18, 14, 12)).astype(np.float32)  # to the patient's right, front and top
STRAIGHT = np.diag([0.8, 1.2, 3.0, 1.0])
FLIPPED = np.diag([-0.8, 1.2, 3.0, 1.0])  # the first axis runs to the left
TURNED = from_matvec(euler2mat(z=np.radians(30)) @ np.diag([0.8, 1.2, 3.0]), [-30, 12, 55])  # about the axis to the top


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine(write_explorable(tmp_path_factory.mktemp("runs")) / "run")


def nii(array, affine=STRAIGHT, unit="mm"):
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units(unit)
    return gzip.compress(image.to_bytes(), 1)


def dicom_series(affine, count, *, rows=14, columns=18):
    """The files of a series of slices; the affine takes (row, column, slice) to mm to the right, front and top."""
    import pydicom
    from pydicom.uid import MRImageStorage, generate_uid

    lps = np.diag([-1, -1, 1, 1]) @ affine
    sides = np.linalg.norm(lps[:3, :3], axis=0)
    files, series = [], generate_uid()
    for k in range(count):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = MRImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.PatientID, data.Modality = series, "synthetic", "MR"
        data.Rows, data.Columns, data.InstanceNumber = rows, columns, count - k
        data.PixelSpacing = [float(side) for side in sides[:2]]
        data.ImageOrientationPatient = [float(v) for v in (*lps[:3, 1] / sides[1], *lps[:3, 0] / sides[0])]
        data.ImagePositionPatient = [float(v) for v in (lps @ [0, 0, k, 1])[:3]]
        data.SliceThickness = float(sides[2])
        data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit = 1, 16, 16, 15
        data.PixelRepresentation, data.PhotometricInterpretation = 0, "MONOCHROME2"
        data.PixelData = (RNG.random((rows, columns)) * 1000 + 100 * k).astype("<u2").tobytes()
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, data, enforce_file_format=True)
        files.append((f"scan/IM{k}", stream.getvalue()))
    return files


# Geometry


@pytest.mark.parametrize(
    ("affine", "letters"),
    [(STRAIGHT, "R L A P"), (FLIPPED, "R L A P"), (TURNED, "RA LP AL PR")],
)
def test_letters_and_millimetres_of_a_volume(engine, affine, letters):
    """The picture is turned so that the patient's right is on the left, whatever the file's axes; oblique ones say so."""
    described = engine.volumes.describe(engine.volumes.add("a.nii.gz", nii(HEAD, affine)))
    edges = described["letters"]
    assert " ".join(edges[edge] for edge in ("left", "right", "top", "bottom")) == letters
    np.testing.assert_allclose(described["pixel"], [1.2, 0.8], rtol=1e-6)  # rows lie 1.2 mm from each other
    assert (described["height"], described["width"]) == (14, 18)
    assert (described["plane"], described["shown_plane"], described["planes"]) == ("acquired", "axial", [*geometry.PLANES])


def test_letters_point_where_the_patient_is():
    """For any affine: a step towards an edge is a step towards its letter."""
    for _ in range(50):
        affine = from_matvec(np.linalg.qr(RNG.normal(size=(3, 3)))[0] * [1, 2, 3], [0, 0, 0])
        for edge, step in {"right": [0, 1, 0], "left": [0, -1, 0], "bottom": [1, 0, 0], "top": [-1, 0, 0]}.items():
            letters = geometry.edge_letters(affine)[edge]
            for letter in letters:
                axis = next(k for k, pair in enumerate(geometry.LETTERS) if letter in pair)
                assert ((affine[:3, :3] @ step)[axis] > 0) == (letter == geometry.LETTERS[axis][1])


@pytest.mark.parametrize(
    ("content", "pixel"),
    [
        (nii(HEAD, unit="micron"), None),  # lengths are in another unit
        (nii(HEAD, unit="unknown"), [1.2, 0.8]),  # as most programs write it
        (npy_bytes(HEAD), None),
    ],
)
def test_millimetres_are_known_only_where_the_file_says_so(engine, content, pixel):
    described = engine.volumes.describe(engine.volumes.add("a", content))
    assert described["pixel"] == (None if pixel is None else pytest.approx(pixel))
    assert (described["letters"] is None) == content.startswith(b"\x93NUMPY")


def test_another_plane_and_another_frame_need_no_new_upload(engine):
    four = np.stack([HEAD, HEAD[::-1] * 0.5, HEAD * 0.25], -1)
    axial = engine.volumes.add("four.nii.gz", nii(four), tab="one")
    assert "the first of 3 volumes" in engine.volumes.describe(axial)["note"]
    (coronal,) = engine.volumes.cut_again(axial, plane="coronal", frame=1, tab="one")
    described = engine.volumes.describe(coronal)
    assert [described[key] for key in ("slices", "height", "width")] == [14, 12, 18]
    assert [described[key] for key in ("plane", "frame", "frames")] == ["coronal", 1, 3]
    assert "volume 2 of 3" in described["note"]
    edges = described["letters"]
    assert [edges[edge] for edge in ("left", "right", "top", "bottom")] == ["R", "L", "S", "I"]
    slices = engine.volumes.get(coronal).file.slices  # from front to back, the head at the top, right on the left
    expected = four[::-1, ::-1, ::-1, 1].transpose(1, 2, 0) / four[..., 1].max()
    np.testing.assert_allclose(slices, expected, rtol=1e-5)
    with pytest.raises(InputError, match="no volume .* any more"):
        engine.volumes.get(axial)
    with pytest.raises(InputError, match="`frame` must be from 0 to 2, the volumes of four.nii.gz, got 3"):
        engine.volumes.cut_again(coronal, plane="axial", frame=3, tab="one")
    with pytest.raises(InputError, match="`plane` must be one of"):
        engine.volumes.cut_again(coronal, plane="oblique", tab="one")
    engine.volumes.get(coronal)  # nothing has changed
    (sagittal,) = engine.volumes.cut_again(axial, plane="sagittal", tab="one")  # asked for before the page knew of coronal
    assert [volume["id"] for volume in engine.volumes.describe_all("one")] == ["test", sagittal]
    assert engine.volumes.cut_again(sagittal, plane="acquired", tab="one") == [axial]
    with pytest.raises(InputError, match="drop a file to choose its plane"):
        engine.volumes.cut_again("test", plane="axial")


def test_a_link_names_the_plane_and_the_frame(engine):
    """Its volume comes back in the tab that follows it, from the files that any tab has open."""
    four = np.stack([HEAD, HEAD[::-1] * 0.5], -1)
    axial = engine.volumes.add("four.nii.gz", nii(four), tab="one")
    (coronal,) = engine.volumes.cut_again(axial, plane="coronal", frame=1, tab="one")
    assert engine.volumes.restore(axial, tab="two") == [axial]
    assert [volume["id"] for volume in engine.volumes.describe_all("two")] == ["test", axial]
    assert engine.volumes.restore(coronal, tab="two") == [coronal]  # is open: in tab one
    assert [volume["id"] for volume in engine.volumes.describe_all("two")] == ["test", coronal]
    assert engine.volumes.describe(coronal)["frame"] == 1
    engine.volumes.remove(coronal, tab="one")
    engine.volumes.get(coronal)  # tab two has it still
    engine.volumes.remove(coronal, tab="two")
    for volume in (coronal, "nothing", "", f"{coronal}-x", "../..axial.0"):
        with pytest.raises(InputError, match="no volume .* any more; drop the file again"):
            engine.volumes.restore(volume, tab="two")


def test_a_dicom_series_is_cut_in_another_plane(engine):
    affine = np.array([[0, 0.8, 0, -5], [-1.2, 0, 0, 9], [0, 0, 3.0, 20], [0, 0, 0, 1]])  # rows to the back, columns right
    files = dicom_series(affine, 12)
    (volume,) = engine.volumes.add_series([*files, ("scan/report.txt", b"text")], tab="one")
    described = engine.volumes.describe(volume)
    assert described["slices"] == 12
    assert "Files skipped: 1 (no image)" in described["note"]
    assert "".join(described["letters"].values()) == "RLAP"
    np.testing.assert_allclose(described["pixel"], [1.2, 0.8])
    (sagittal,) = engine.volumes.cut_again(volume, plane="sagittal", tab="one")
    described = engine.volumes.describe(sagittal)
    assert [described[key] for key in ("slices", "height", "width")] == [18, 12, 14]
    assert "".join(described["letters"].values()) == "APSI"
    np.testing.assert_allclose(described["pixel"], [3, 1.2])


def test_sides_that_the_network_cannot_halve_are_mirrored_and_it_says_so(engine):
    note = engine.volumes.describe(engine.volumes.add("a.npy", npy_bytes(HEAD)))["note"]
    assert "The network mirrors its borders to 16 x 16 pixels and cuts them off again" in note
    assert "padded" not in note
    assert engine.reconstruct(engine.volumes.add("a.npy", npy_bytes(HEAD)), 0, [0.5])[0].shape == (14, 12)
    with pytest.raises(InputError, match="at least 11 x 11 pixels, got 14 x 9"):
        engine.volumes.add("a.npy", npy_bytes(HEAD[:, :, :9]))


def test_how_a_volume_differs_from_the_training_images_is_said(engine):
    bright = engine.volumes.describe(engine.volumes.add("a.npy", npy_bytes(0.9 + 0.1 * RNG.random((16, 16)))))
    assert len(bright["differences"]) == 1
    assert "brighter than in all test images" in bright["differences"][0]
    like = engine.volumes.describe(engine.volumes.add("a.npy", npy_bytes(RNG.random((2, 16, 16)))))
    assert like["differences"] == []
    larger = engine.volumes.describe(engine.volumes.add("a.npy", npy_bytes(RNG.random((2, 24, 16)))))
    assert larger["differences"] == ["The network was trained on 16 x 16 pixels, this is 24 x 16."]


# Whose volumes


def test_volumes_belong_to_the_tab_that_added_them(engine):
    volume = engine.volumes.add("a.npy", npy_bytes(HEAD + 1), tab="one")

    def ids(tab, linked=""):
        return [described["id"] for described in engine.describe(tab, linked)["volumes"]]

    assert volume in ids("one")
    assert ids("two") == ["test"]
    assert engine.volumes.add("same.npy", npy_bytes(HEAD + 1), tab="two") == volume
    assert ids("three", volume) == ["test", volume]  # a link names it
    engine.volumes.remove(volume, tab="one")
    assert volume not in ids("one")
    assert ids("two") == ["test", volume]
    engine.volumes.remove(volume, tab="two")
    assert ids("three") == ["test", volume]
    assert ids("four", "missing") == ["test"]
    engine.volumes.remove(volume, tab="three")
    with pytest.raises(InputError, match="no volume .* any more"):
        engine.volumes.remove(volume, tab="two")
    with pytest.raises(InputError, match="cannot be removed"):
        engine.volumes.remove("test", tab="one")


# Noise


def test_a_volume_that_is_held_stays_open_until_then(engine):
    volume = engine.volumes.add("held.npy", npy_bytes(HEAD + 0.123), tab="one")
    with engine.volumes.hold(volume), engine.volumes.hold(volume):
        engine.volumes.remove(volume, tab="one")
        engine.volumes.get(volume)
        assert volume not in [described["id"] for described in engine.volumes.describe_all("one")]
    with pytest.raises(InputError, match="no volume .* any more"):
        engine.volumes.get(volume)
    with engine.volumes.hold("test"):
        pass
    engine.volumes.get("test")


@pytest.mark.slow
def test_noise_is_known_or_said_to_be_unknown(engine, tmp_path):
    assert engine.input_and_reference("test", 0)[1]["noise"] == {"j": 0.0, "spread": 0.0, "estimate": False}
    task = {"name": "denoising", "sigma": 0.2}
    noisy = Engine(write_explorable(tmp_path, task=task) / "run")
    noise = noisy.input_and_reference("test", 0)[1]["noise"]
    np.testing.assert_allclose(noise["j"], 0.04 * 16 * 16, rtol=1e-6)
    opened, measured = noisy.volumes.measure("test", 0)
    j = float(opened.problem.data_consistency(measured.x, measured.y))
    assert abs(j - noise["j"]) < 4 * noise["spread"]
    plane, info = noisy.contradiction("test", 0, [0.5])
    assert plane.shape == (16, 16)
    assert info["is_noise_known"]
    assert 0.05 < info["low"] < 0.4  # noise of 0.2, averaged over 5 x 5 pixels
    assert info["high"] == 2 * info["low"]


# Exports


@pytest.mark.slow
@pytest.mark.parametrize("affine", [STRAIGHT, FLIPPED, TURNED])
def test_a_whole_volume_lies_where_its_file_lies(engine, affine):
    """Each value of the result is at the place, in mm, that the file has for it."""
    volume = engine.volumes.add("head.nii.gz", nii(HEAD * 700, affine))
    name, content = exporting.export_volume(engine, volume, [0.25], "nii", content="truth")
    assert name == "head_all_truth.nii.gz"
    result = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    back = np.linalg.inv(affine) @ result.affine  # from voxels of the result to those of the file
    for voxel in np.ndindex(result.shape):
        source = tuple(np.rint(back @ [*voxel, 1]).astype(int)[:3])
        np.testing.assert_allclose(result.dataobj[voxel], HEAD[source] * 700, rtol=1e-4)
    name, content = exporting.export_volume(engine, volume, [0.25], "nii")
    assert name == "head_all_lambda_0.25.nii.gz"
    result = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    metadata = json.loads(result.header.extensions[0].get_content().rstrip(b"\0"))
    assert (metadata["lambda"], metadata["content"], metadata["run"]) == ("0.25", "result", "run")
    assert metadata["notice"] == "For research. Not for diagnosis."
    assert {"version", "date"} < set(metadata)
    image, _ = engine.reconstruct(volume, 3, [0.25])
    scale = engine.volumes.get(volume).file.scale[1]
    np.testing.assert_allclose(result.get_fdata()[:, :, 3], image * scale, atol=1e-3 * scale)


@pytest.mark.slow
def test_a_whole_volume_as_a_dicom_series(engine):
    import pydicom

    volume = engine.volumes.add("head.nii.gz", nii(HEAD, TURNED))
    name, content = exporting.export_volume(engine, volume, [0.25], "dcm", content="input")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [(entry, archive.read(entry)) for entry in archive.namelist()]
    assert name == "head_all_input.zip"
    assert [entry for entry, _ in files] == [f"head_all_input/{k:04d}.dcm" for k in range(12)]
    headers = [pydicom.dcmread(io.BytesIO(file)) for _, file in files]
    assert len({header.SeriesInstanceUID for header in headers}) == 1
    assert json.loads(headers[0].ImageComments)["content"] == "input"
    (again,) = engine.volumes.add_series(files)  # the series is a volume like any other
    first, second = engine.volumes.get(volume).file, engine.volumes.get(again).file
    np.testing.assert_allclose(second.affine, first.affine, atol=1e-3)
    planes, _ = engine.input_and_reference(volume, 5)
    shown = second.slices[5] * second.scale[1]
    np.testing.assert_allclose(shown, planes[0] * first.scale[1], atol=2e-3)


@pytest.mark.slow
def test_the_scores_of_all_slices_as_a_table(engine):
    name, content = exporting.export_scores(engine, "test", [0.25])
    assert name == "test_images_scores_lambda_0.25.csv"
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    order = [(str(k), image) for k in range(3) for image in ("result", "input")]
    assert [(row["slice"], row["image"]) for row in rows] == order
    _, info = engine.reconstruct("test", 1, [0.25])
    _, source = engine.input_and_reference("test", 1)
    for metric in ("psnr", "ssim", "mae", "hfen"):
        np.testing.assert_allclose(float(rows[2][metric]), info["metrics"][metric], rtol=1e-6)
        np.testing.assert_allclose(float(rows[3][metric]), source["metrics"][metric], rtol=1e-6)
    assert (rows[3]["data_consistency"], float(rows[2]["noise_j"])) == ("", 0)
    assert (rows[0]["run"], rows[0]["lambda"]) == ("run", "0.25")


def test_input_and_truth_of_a_slice_as_files(engine):
    for content, plane in (("input", 0), ("truth", 1)):
        name, file = exporting.export_slices(engine, "test", 1, [[0.25], [0.5]], "npy", content=content)
        assert name == f"test_images_1_{content}.npz"
        with np.load(io.BytesIO(file)) as archive:
            np.testing.assert_allclose(archive["image"], engine.input_and_reference("test", 1)[0][plane], atol=1e-6)
            assert "lambda" not in json.loads(str(archive["metadata"]))
    kspace = np.fft.fftshift(np.fft.fft2(RNG.random((16, 16)))) * (np.arange(16) % 3 != 0)
    volume = engine.volumes.add("k.npy", npy_bytes(kspace), "kspace")
    with pytest.raises(InputError, match="The truth is not known of this volume"):
        exporting.export_slices(engine, volume, 0, [[0.5]], "png", content="truth")
    for call in (
        lambda: exporting.export_slices(engine, "test", 1, [[0.5]], "png", content="all"),
        lambda: exporting.export_volume(engine, "test", [0.5], "png"),
    ):
        with pytest.raises(InputError, match="must be one of"):
            call()


# Memory


def zeros_npz(slices, dtype):
    """A small archive that declares slices of 512 x 512 numbers that are 0."""
    stream, dtype = io.BytesIO(), np.dtype(dtype)
    header = {"descr": dtype.str, "fortran_order": False, "shape": (slices, 512, 512)}
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("image.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(slices):
            file.write(bytes(512 * 512 * dtype.itemsize))
    return stream.getvalue()


@pytest.mark.slow
def test_a_small_file_that_declares_gigabytes_is_refused(engine):
    bomb = zeros_npz(512, np.complex128)
    assert len(bomb) < 2**22
    for name, content in (("bomb.npz", bomb), ("bomb.nii.gz", nifti_bomb())):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(InputError, match=f"{name} must take at most 89. MiB of memory while it is read"):
            engine.volumes.add(name, content)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


def nifti_bomb():
    image = nibabel.Nifti1Image(np.zeros((1, 1, 1), np.complex128), np.eye(4))
    image.header.set_data_shape((512, 512, 256))
    return gzip.compress(bytes(image.header.binaryblock) + bytes(4), 1)


MEASURE = """
import resource, sys
from pathlib import Path
from helper import small_networks
from hyperrecon_jax.explorer.engine import Engine
from hyperrecon_jax.runtime.errors import InputError
with small_networks():
    engine = Engine(Path(sys.argv[1]))
rest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    engine.volumes.add("big.npz", Path(sys.argv[2]).read_bytes(), sys.argv[3])
    print("read")
except InputError as error:
    print("refused" if "of memory while it is read" in str(error) else error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rest) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "slices", "outcome"),
    [("u1", 256, "read"), ("f4", 240, "read"), ("f4", 320, "refused"), ("c8", 120, "read"), ("c16", 60, "read")],
)
def test_the_largest_files_take_at_most_a_gibibyte(engine, tmp_path, dtype, slices, outcome):
    """The memory above that of the page at rest, in a process of its own."""
    values = np.zeros((slices, 512, 512), dtype)
    values[:, 200:300, 200:300] = RNG.integers(1, 100, (100, 100))
    if dtype.startswith("c"):
        values[:, 256, 256] = 1e4
    np.savez_compressed(tmp_path / "big.npz", image=values)
    del values
    kind = "kspace" if dtype.startswith("c") else "image"
    result = run_python("-c", MEASURE, engine.run, tmp_path / "big.npz", kind, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    said, mebibytes = result.stdout.splitlines()
    assert said == outcome
    assert int(mebibytes) < 1024
