"""Somebody's files as prepared data: what is read back, when they are prepared again, and what is told."""

import os
import pickle
import shutil
from multiprocessing import get_context

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from hyperrecon_jax import data
from hyperrecon_jax.data import builder, preparation, prepared
from hyperrecon_jax.data.sources import abide, fastmri, folder
from hyperrecon_jax.data.sources.subject import EMPTY, Slices
from hyperrecon_jax.physics.sample import Coils
from hyperrecon_jax.runtime.errors import InputError
from tests.data.sources.test_abide import write as write_abide

SETTINGS = data.Settings(size=16, slices=100, coils=0, acquisition="", whiten=False)
NAMES = ["anna", "bert o'neill", "çağla", "dora", "emil", "fay"]  # fay's cannot be used
ASKED = {"settings": SETTINGS, "subjects": (2, 1, 2)}


def pixels(name):
    """Two slices or more, and one that is empty."""
    images = np.random.default_rng(len(name)).random((len(name) - 1, 16, 16), np.float32)
    images[1] = 0
    return images


def expected(name):
    images = pixels(name)
    return np.delete(images, 1, axis=0) / images.max()


def fill(root):
    root.mkdir(parents=True)
    for name in NAMES[:-1]:
        np.save(root / f"{name}.npy", pixels(name))
    (root / "fay.npy").write_bytes(b"text")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Raw files, their cache, and the folder in it."""
    top = tmp_path_factory.mktemp("files")
    cache = top / "cache"
    return fill(top / "scans"), cache, data.files_folder("folder", root=top / "scans", cache=cache, **ASKED)


@pytest.fixture
def no_reading(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a subject was read although the cache had it")

    monkeypatch.setattr(folder, "read", refuse)


@pytest.fixture
def copy(made, tmp_path):
    """The same, to be spoilt, with a copy of the raw files under the name that the cache knows."""
    root, _, _ = made
    kept = shutil.copytree(root, tmp_path / "kept")
    yield root
    shutil.rmtree(root, ignore_errors=True)
    shutil.move(kept, root)


def again(made, **changes):
    root, cache, _ = made
    return data.files_folder("folder", **{"root": root, "cache": cache, **ASKED, **changes})


def every(split):
    return split.samples.take(np.arange(split.samples.size))


# What is read back


@pytest.mark.parametrize("disk", [True, False, None])
def test_images_are_those_of_the_files(made, disk):
    known = data.metadata(made[2])
    dataset = data.read(made[2], disk=disk)
    for name, split in zip(dataset._fields, dataset, strict=True):
        images = [expected(subject) for subject in known["subjects"][name]]
        sample = every(split)
        np.testing.assert_allclose(sample.image[..., 0], np.concatenate(images), atol=0.5001 / 65535)
        assert sample.image.dtype == np.float32
        assert (sample.label, sample.coils) == (None, None)
        assert known["slices"][name] == [len(one) for one in images]
        assert (split.samples.arrays is None) == (disk is True)
    subjects = np.concatenate([split.subjects for split in dataset])
    np.testing.assert_array_equal(subjects, np.repeat(np.arange(5), np.concatenate(list(known["slices"].values()))))


def test_the_metadata_tell_who_is_where_and_why(made):
    root, _, path = made
    known = data.metadata(path)
    assert [len(group) for group in known["subjects"].values()] == [2, 1, 2]
    used = [name for group in known["subjects"].values() for name in group]
    assert sorted(used) == sorted(NAMES[:-1])
    assert known["dropped"] == {name: {EMPTY: 1} for name in used}
    assert list(known["unusable"]) == ["fay"]
    assert "fay.npy must be" in known["unusable"]["fay"]
    files = {name: root / f"{name}.npy" for name in NAMES}
    assert known["files"] == {str(file): [file.stat().st_size, int(file.stat().st_mtime)] for file in files.values()}
    assert known["root"] == str(root)


def test_they_can_be_sent_to_another_process(made):
    split = data.read(made[2], disk=True).train
    index = np.array([2, 0])
    with get_context("spawn").Pool(1) as pool:
        there = pool.apply(split.samples.take, (index,))
    pool.join()
    np.testing.assert_array_equal(there.image, every(split).image[index])
    assert len(pickle.dumps(split.samples.take)) < 1000


def test_labels_are_those_of_the_files(tmp_path):
    for k in range(3):
        write_abide(tmp_path / f"scans/s{k}/mri")
    settings = SETTINGS._replace(size=32, slices=3)
    path = data.files_folder(
        "abide", root=tmp_path / "scans", settings=settings, subjects=(1, 1, 1), cache=tmp_path / "cache"
    )
    for split in data.read(path):
        ((_, files), *_) = abide.find(tmp_path / "scans", settings).items()
        slices = abide.read(files, settings)
        np.testing.assert_allclose(split.samples.arrays.image[..., 0], slices.image, atol=0.5001 / 65535)
        np.testing.assert_array_equal(split.samples.arrays.label, slices.label)
        assert split.samples.arrays.label.dtype == np.uint8


@pytest.mark.parametrize("disk", [True, False])
def test_measured_kspace_is_kept_to_the_last_bit(tmp_path, monkeypatch, disk):
    rng = np.random.default_rng(0)
    image = rng.random((2, 16, 16), np.float32)
    coils = Coils(
        *(rng.standard_normal((2, 2, 3, 16, 16)) + 1j * rng.standard_normal((2, 2, 3, 16, 16))).astype(np.complex64)
    )
    monkeypatch.setattr(fastmri, "find", lambda root, settings: {name: [root] for name in "abc"})
    monkeypatch.setattr(fastmri, "read", lambda files, settings: Slices(image, None, coils, {}))
    settings = SETTINGS._replace(coils=3)
    path = data.files_folder(
        "fastmri", root=tmp_path / "x", settings=settings, subjects=(1, 1, 1), cache=tmp_path / "cache"
    )
    for split in data.read(path, disk=disk):
        sample = every(split)
        for ours, theirs in zip(sample.coils, coils, strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == np.complex64
        assert split.samples.nbytes == image.nbytes + sum(array.nbytes for array in coils)


def test_shards_change_nothing(made, tmp_path, monkeypatch):
    """Nor does a split larger than TFDS would sort in memory, for which it needs TensorFlow."""
    monkeypatch.setattr(builder, "SHARD", 1)
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1)
    path = again(made, cache=tmp_path / "cache")
    assert sorted(file.name for file in path.glob("*train*")) == [
        f"folder-train.array_record-0000{k}-of-00002" for k in range(2)
    ]
    for split, other in zip(data.read(path, disk=True), data.read(made[2]), strict=True):
        np.testing.assert_array_equal(every(split).image, other.samples.arrays.image)
    population = data.mni(size=16, subjects=(3, 1, 1), slices=2, cache=tmp_path / "cache")
    monkeypatch.undo()
    usual = data.mni(size=16, subjects=(3, 1, 1), slices=2, cache=tmp_path / "other")
    np.testing.assert_array_equal(population.train.samples.arrays.image, usual.train.samples.arrays.image)


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(5, 1, [5]), (5, 2**28, [1] * 5), (4, 2**27, [2, 2]), (300, 2**30, None)]
)
def test_shards_hold_whole_subjects_in_order(count, size, lengths):
    shards = builder._shards(list(range(count)), size)
    assert [subject for shard in shards for subject in shard] == list(range(count))
    assert [len(shard) for shard in shards] == lengths or len(shards) == builder.MOST_SHARDS


def test_it_is_a_builder_as_others_of_tfds(made, tmp_path):
    config = builder.FilesConfig(name="mine", settings=SETTINGS, subjects=(2, 1, 2))
    ours = builder.Folder(config=config, data_dir=tmp_path, file_format="array_record")
    with prepared.quiet():
        ours.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=made[0]))
    images = np.stack([example["image"] for example in ours.as_data_source("train")])
    np.testing.assert_array_equal(np.divide(images, np.float32(65535)), every(data.read(made[2]).train).image)
    assert not list(tmp_path.rglob("*.npz"))


# When they are prepared


def test_they_are_prepared_once(made, no_reading):
    _, cache, path = made
    assert again(made) == path
    assert not list(cache.rglob("*.npz"))
    assert not list(cache.rglob("*incomplete*"))


def test_one_folder_has_one_name(made, no_reading, monkeypatch):
    root, _, path = made
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("HOME", str(root.parent))
    for name in ("scans", "scans/", "./scans", "../" + root.parent.name + "/scans", "~/scans", f"{root}/"):
        assert again(made, root=name) == path


@pytest.mark.parametrize("change", [{"settings": SETTINGS._replace(size=24)}, {"seed": 1}, {"subjects": (1, 2, 2)}])
def test_other_settings_are_prepared_apart(made, no_reading, change):
    with pytest.raises(AssertionError, match="a subject was read"):
        again(made, **change)


def test_the_files_may_go(made, copy, no_reading):
    before = every(data.read(made[2]).train).image
    (copy / "anna.npy").unlink()
    np.save(copy / "zoe.npy", pixels("zoe"))
    assert again(made) == made[2]
    for file in copy.iterdir():
        file.unlink()
    assert again(made) == made[2]
    copy.rmdir()
    np.testing.assert_array_equal(every(data.read(again(made)).train).image, before)


def test_files_that_changed_are_told_and_prepared_again_when_their_folder_is_deleted(copy, tmp_path):
    made = copy, tmp_path / "cache", None
    path = again(made)
    before = data.read(path, disk=True)
    for name in NAMES[:-1]:
        np.save(copy / f"{name}.npy", pixels(name)[::-1])
        os.utime(copy / f"{name}.npy", (1e9, 1e9))
    with pytest.raises(InputError) as caught:
        again(made)
    assert f"`root` {copy} must hold the files that were prepared, but {copy}/" in str(caught.value)
    assert f"has changed since; delete {path} to" in str(caught.value)
    shutil.rmtree(path)
    assert again(made) == path
    after = data.read(path, disk=True)
    name = data.metadata(path)["subjects"]["val"][0]
    np.testing.assert_allclose(every(after.val).image[..., 0], expected(name)[::-1], atol=0.5001 / 65535)
    assert after.val.samples.identity != before.val.samples.identity
    assert after.val.samples.identity == data.read(path, disk=True).val.samples.identity


def test_another_process_may_be_first(made, tmp_path, monkeypatch):
    """It finishes, and clears away what both had read, while we pack our last subject."""
    packed, calls = preparation.slices, []
    path = tmp_path / made[2].relative_to(made[1])

    def overtaken(part):
        calls.append(part)
        if len(calls) == 5:
            shutil.copytree(made[2], path)
            shutil.rmtree(tmp_path / "unfinished")
        return packed(part)

    monkeypatch.setattr(preparation, "slices", overtaken)
    assert again(made, cache=tmp_path) == path
    assert len(calls) == 5
    assert data.read(path).train.samples.size == data.read(made[2]).train.samples.size
    assert not list(tmp_path.rglob("*incomplete*"))


def test_an_interruption_leaves_nothing_that_looks_complete(made, tmp_path, monkeypatch):
    def interrupted(part):
        raise KeyboardInterrupt

    def not_again(files, settings):
        raise InputError("read again")

    monkeypatch.setattr(preparation, "slices", interrupted)
    with pytest.raises(KeyboardInterrupt):
        again(made, cache=tmp_path)
    monkeypatch.undo()
    assert {file for file in tmp_path.rglob("*") if file.is_file()} == set((tmp_path / "unfinished").rglob("*.npz"))
    monkeypatch.setattr(folder, "read", not_again)
    path = again(made, cache=tmp_path)
    assert data.metadata(path)["unusable"] == {"fay": "read again"}
    np.testing.assert_array_equal(every(data.read(path).test).image, every(data.read(made[2]).test).image)
    assert not list(tmp_path.rglob("*.npz"))


# What is told


def test_damage_is_told_before_it_is_compared(made, tmp_path):
    cache = shutil.copytree(made[1], tmp_path / "cache")
    path = cache / made[2].relative_to(made[1])
    (path / "metadata.json").write_text("{")
    with pytest.raises(InputError, match=f"{path} cannot be read .* delete that folder"):
        again(made, cache=cache)


def test_a_cache_inside_of_the_files_is_refused(made, no_reading):
    root = made[0]
    for cache in (root, root / "cache"):
        with pytest.raises(InputError, match=r"`cache` .*scans.* must lie outside of `root` .*scans"):
            again(made, cache=cache)
    with pytest.raises(AssertionError, match="a subject was read"):
        again(made, cache=root / ".cache")
    shutil.rmtree(root / ".cache")


def test_a_disk_that_fills_up_is_told(tmp_path):
    """As array_record tells of it."""
    full = RuntimeError(
        "write() failed: No space left on device; writing /cache/x; at byte 9; Failed to close chunk_writer"
    )
    with (
        pytest.raises(InputError, match=r"`cache` .* must be a folder that can be written to .*No space left"),
        prepared.preparing(tmp_path, tmp_path / "new", 0),
    ):
        raise full


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"subjects": (4, 1, 2)}, r"`subjects` must be at most 6 together, as many as .*scans holds, got \(4, 1, 2\)"),
        (
            {"subjects": (3, 1, 2)},
            r"`subjects` must be at most the 5 that can be used, .* 1 cannot: fay: .*fay\.npy must be",
        ),
        ({"subjects": (0, 1, 1)}, "`subjects` must be three positive whole numbers"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0, got -1"),
        ({"settings": SETTINGS._replace(size=12)}, "`size` must be a positive multiple of 8"),
        ({"settings": SETTINGS._replace(slices=0)}, "`slices` must be a positive whole number"),
        ({"root": "/nowhere"}, "/nowhere must be a folder, but there is none"),
    ],
)
def test_wrong_arguments_are_named(made, tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        again(made, cache=tmp_path, **wrong)
    assert not list(tmp_path.rglob("*.json"))


def test_an_unknown_source_is_named(tmp_path):
    with pytest.raises(InputError, match="`source` must be one of fastmri, abide, folder, got 'mni'"):
        data.files_folder("mni", root=tmp_path, cache=tmp_path / "cache", **ASKED)
