"""`python -m bin.prepare` as a user meets it."""

import shlex

import matplotlib.image
import nibabel
import numpy as np
import pytest
from helper import ROOT, npy_bytes, run_forks, run_python
from PIL import Image

from hyperrecon_jax import data
from hyperrecon_jax.commands import prepare
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.errors import InputError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Five subjects of three slices, one of pictures with an empty one, and one that cannot be used."""
    folder = tmp_path_factory.mktemp("files") / "my scans"
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir(parents=True)
    for k in range(4):
        images = rng.random((3, 16, 16), np.float32)
        images[0, 0, :k] = np.nan
        (folder / f"s{k}.npy").write_bytes(npy_bytes(images))
    for k in range(4):
        pixels = rng.integers(0, 255, (16, 16), np.uint8) * (k != 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"pictures/{k}.png")
    bad = nibabel.Nifti1Image(np.zeros((16, 16, 8), np.float32), np.eye(4))
    bad.header["pixdim"][1] = -1  # which nibabel corrects, with a message
    (folder / "bad.nii").write_bytes(bad.to_bytes())
    return folder


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """The finished commands: a preparation from a relative root, and then the mistakes.

    They are forks of one process, because its imports take seconds.
    """
    cwd, cache = tmp_path_factory.mktemp("mistakes"), root.parent / "cache"
    (cwd / "file").touch()
    first = ["--source=folder", "--size=16", "--subjects=3,1,1", f"--cache={cache}", "--root=my scans/", "--workers=1"]
    places = {"ROOT": ["--source=folder", f"--root={root}"], "INSIDE": [f"--cache={root}/cache"]}
    mistakes = [[value for arg in args for value in places.get(arg, [arg])] for args, _ in MISTAKES]
    mistakes = [args if any("--cache" in arg for arg in args) else [f"--cache={cwd}/cache", *args] for args in mistakes]
    cases = [(first, root.parent), *((args, cwd) for args in mistakes)]
    imports = ["hyperrecon_jax.cli.prepare", "hyperrecon_jax.commands.prepare"]
    return run_forks("bin.prepare", cases, imports=imports, timeout=120)


@pytest.fixture(scope="module")
def first(root, finished):
    return finished[0], root.parent / "cache"


def test_it_describes_the_prepared_data(root, first):
    result, cache = first
    assert result.returncode == 0, result.stderr
    (picture,) = cache.rglob("slices.png")
    lines = result.stdout.splitlines()
    numbers = [line.split() for line in lines[:4]]
    slices = data.metadata(picture.parent)["slices"]
    assert numbers == [
        ["split", "subjects", "slices"],
        ["training", "3", str(sum(slices["train"]))],
        ["validation", "1", str(sum(slices["val"]))],
        ["test", "1", str(sum(slices["test"]))],
    ]
    assert sum(map(sum, slices.values())) == 15
    assert lines[4] == "Slices dropped: 1 (background alone)."
    assert sorted(line.split("became")[0].split(";")[-1] for line in lines[5:8]) == [
        " 1 value that is NaN (0.13%) ",
        " 2 values that are NaN (0.26%) ",
        " 3 values that are NaN (0.39%) ",
    ]
    assert {line[:10] for line in lines[5:8]} == {"Note: s1: ", "Note: s2: ", "Note: s3: "}
    rest = lines[8:]
    if data.metadata(picture.parent)["unusable"]:
        assert rest.pop(0).startswith("Not used: bad: ")
    assert rest[0] == "Slices are 16 x 16; all of them take 15.4 kB of memory."
    assert rest[1] == f"Look at {picture}."
    assert rest[2].startswith("Train on it: python -m bin.train --config configs/paper_csmri_supervised_4x.py ")
    assert "5/5" in result.stderr
    assert "Traceback" not in result.stderr


def test_it_lists_a_dozen_notes():
    lines = prepare._list_notes({"a": ["x", "y"], "b": [], "c": ["y", *map(str, range(12))], "d": ["y"]})
    assert lines[:3] == ["Note: a and 2 more: y.", "Note: a: x.", "Note: c: 0."]
    assert lines[12:] == ["... and 2 more notes."]


def test_names_of_files_do_not_reach_the_terminal_as_they_are():
    """A terminal obeys control characters, and an output in UTF-8 cannot hold bytes that are not."""
    samples = data.in_memory(Sample(np.zeros((3, 16, 16, 1), np.float32)))
    three = data.Split(samples, np.arange(3, dtype=np.int32))
    metadata = {"slices": {split: [1] for split in prepare.SPLIT_NAMES}, "unusable": {"\x1b[31m\n\udcff": "it is ü"}}
    lines = prepare.describe(metadata, data.Dataset(three, three, three)).splitlines()
    assert lines[4] == r"Not used: \x1b[31m\n\udcff: it is ü"


def test_the_picture_shows_slices(first):
    (picture,) = first[1].rglob("slices.png")
    pixels = matplotlib.image.imread(picture)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels)) > 100


def prepare_again(root, cache):
    """Do in this process what the first command did, from an absolute root; return what it says."""
    lines = []
    settings = {"source": "folder", "root": str(root), "size": 16, "subjects": (3, 1, 1), "cache": str(cache)}
    prepare.prepare({"data": settings, "train": {"batch": 1}}, say=lines.append)
    return lines


def test_the_same_again_prepares_nothing(root, first):
    result, cache = first
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("*.array_record*")}
    assert "\n".join([*prepare_again(root, cache), ""]) == result.stdout
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.array_record*")} == files


@pytest.mark.slow
def test_the_training_command_finds_them(root, first):
    """Its batch of 32 is more than there are: training gets as far as to count them."""
    line = first[0].stdout.splitlines()[-1].removeprefix("Train on it: python ")
    args = shlex.split(line)
    assert f"--config.data.root={root}" in args
    result = run_python(*args, "--workdir", root.parent / "run", cwd=ROOT, timeout=120)
    (picture,) = first[1].rglob("slices.png")
    count = sum(data.metadata(picture.parent)["slices"]["train"])
    assert result.returncode == 2
    assert result.stderr == f"error: config.train.batch must be at most the {count} training images, got 32.\n"


def test_a_cache_of_somebody_else_has_no_picture(root, first, monkeypatch):
    def refused(*args):
        raise PermissionError(13, "Permission denied", "slices.png")

    monkeypatch.setattr(prepare.figures, "image_rows", refused)
    lines = prepare_again(root, first[1])
    assert lines[1] == "There is no picture: [Errno 13] Permission denied: 'slices.png'."


def test_files_that_are_left_out_are_counted(tmp_path):
    images = np.random.default_rng(0).random((2, 16, 16))
    for name in ("anna", "bert", "carl"):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for file, array in (("x", images), ("x_seg", images), ("mask", np.rint(images))):
            (tmp_path / "scans" / name / f"{file}.npy").write_bytes(npy_bytes(array))
        (tmp_path / "scans" / name / "report.dcm").touch()
    settings = {"source": "folder", "root": str(tmp_path / "scans"), "size": 16, "subjects": (1, 1, 1)}
    settings |= {"exclude": ("*_seg.npy", "*/none"), "cache": str(tmp_path / "cache")}
    lines = []
    prepare.prepare({"data": settings, "train": {"batch": 1}}, say=lines.append)
    assert "Files skipped: 3 (an empty file), 3 (left out by --include and --exclude)." in lines[0]
    assert " and 2 more: mask.npy may be a label map; --exclude leaves such files out." in lines[0]
    assert "--config.data.exclude=('*_seg.npy', '*/none')" in shlex.split(lines[-1])


def test_a_synthetic_population(tmp_path):
    lines = []
    settings = {"size": 16, "subjects": (1, 1, 1), "slices": 2, "cache": str(tmp_path)}
    folder = prepare.prepare({"data": settings, "train": {"batch": 1}}, say=lines.append)
    assert "Slices are 16 x 16, with labels; all of them take 7.7 kB of memory." in lines[0]
    assert "dropped" not in lines[0]
    assert lines[1:] == [
        f"Look at {folder}/slices.png.",
        f"Train on it: python -m bin.train --config configs/paper_csmri_supervised_4x.py --config.data.cache={tmp_path}"
        " --config.data.size=16 --config.data.slices=2 --config.data.subjects=1,1,1",
    ]


def test_arrays_are_not_prepared():
    with pytest.raises(InputError, match='config.data.source must be one that is prepared, got "arrays"'):
        prepare.prepare({"data": {"source": "arrays"}})


MISTAKES = [
    ([], "Say what to prepare: --source folder --root FOLDER (see --help)."),
    (["--source=arrays"], '--source must be one that is prepared, got "arrays", whose files are read as they are.'),
    (["--source=nifti", "--root=x"], "--source must be one of mni, broad, arrays, fastmri, abide, folder, got 'nifti'."),
    (["--source=folder"], "--root must be a folder where --source is \"folder\", got ''."),
    (["--source=folder", "--root=gone"], "/gone must be a folder, but there is none."),
    (
        ["--size=12", "ROOT"],
        "--size must be a positive multiple of 8 (the U-Net halves it three times), at most 4096, got 12.",
    ),
    (["--subjects=1,2", "ROOT"], "--subjects must be three numbers of at least 1, got (1, 2)."),
    (["--subjects=1,2,x", "ROOT"], "--subjects must be whole numbers, got 1,2,x."),
    (["--subjects=1.5,2,1", "ROOT"], "--subjects must be whole numbers, got 1.5,2,1."),
    (["--subjects=4,2,1", "ROOT"], "/my scans holds (bad, pictures, s0, ...), got (4, 2, 1)."),
    (
        ["--subjects=4,1,1", "--size=16", "ROOT"],
        "--subjects must be at most the 5 that can be used, got (4, 1, 1); 1 cannot",
    ),
    (["--coils=-1", "ROOT"], "--coils must be at least 0, got -1."),
    (["--subjects=1,1,1", "INSIDE", "ROOT"], "must lie outside of --root "),
    (["--subjects=1,1,1", "--cache=file/cache", "ROOT"], "file/cache must be a folder that can be written to, but "),
]


@pytest.mark.parametrize(("k", "sentence"), [(k, sentence) for k, (_, sentence) in enumerate(MISTAKES)])
def test_mistakes_are_named_in_one_sentence(root, finished, k, sentence):
    result = finished[1 + k]
    assert (result.returncode, result.stdout) == (2, "")
    *before, last = result.stderr.splitlines()
    assert last.startswith("error: ")
    assert sentence in last
    assert all("preparing data" in line or "cannot be used: bad: " in line for line in filter(str.strip, before))
    assert not (root / "cache").exists()


def test_a_mistake_ends_with_status_2(tmp_path):
    result = run_python("-m", "bin.prepare", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: {MISTAKES[0][1]}\n"
