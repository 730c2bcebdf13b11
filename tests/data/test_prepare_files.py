"""Somebody's files as prepared data: what is read back, when they are prepared again, and the messages."""

import os
import pickle
import shutil
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from hyperrecon_jax import data
from hyperrecon_jax.data import builder, cache, prepare
from hyperrecon_jax.data import subjects as file_subjects
from hyperrecon_jax.data.sources import abide, fastmri, folder
from hyperrecon_jax.data.sources.base import EMPTY, Slices
from hyperrecon_jax.physics.sample import Coils
from hyperrecon_jax.runtime.errors import InputError
from tests.data.sources.test_abide import write as write_abide

SETTINGS = data.Settings(size=16, slices=100, coils=0, acquisition="", whiten=False)
NAMES = ["anna", "bert o'neill", "çağla", "dora", "emil", "fay"]  # fay's cannot be used
OPTIONS = {"settings": SETTINGS, "subjects": (2, 1, 2)}


def pixels(name):
    """Two slices or more, and an empty one."""
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


class Prepared(NamedTuple):
    """Raw files, the cache, and the folder of the prepared data in it."""

    root: Path
    cache: Path
    folder: Path | None


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    top = tmp_path_factory.mktemp("files")
    root = fill(top / "scans")
    return Prepared(root, top / "cache", data.files_folder("folder", root=root, cache=top / "cache", **OPTIONS))


@pytest.fixture
def no_reading(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a subject was read although the cache had it")

    monkeypatch.setattr(folder, "read", refuse)


@pytest.fixture
def changing_root(prepared, tmp_path):
    """The folder of the raw files, for a test that changes them; restored afterwards."""
    backup = shutil.copytree(prepared.root, tmp_path / "backup")
    yield prepared.root
    shutil.rmtree(prepared.root, ignore_errors=True)
    shutil.move(backup, prepared.root)


def prepare_again(prepared, **changes):
    return data.files_folder("folder", **{"root": prepared.root, "cache": prepared.cache, **OPTIONS, **changes})


def all_samples(split):
    return split.samples.take(np.arange(split.samples.size))


# Reading back


@pytest.mark.parametrize("disk", [True, False, None])
def test_images_are_those_of_the_files(prepared, disk):
    metadata = data.metadata(prepared.folder)
    dataset = data.read(prepared.folder, disk=disk)
    for name, split in zip(dataset._fields, dataset, strict=True):
        images = [expected(subject) for subject in metadata["subjects"][name]]
        sample = all_samples(split)
        np.testing.assert_allclose(sample.image[..., 0], np.concatenate(images), atol=0.5001 / 65535)
        assert sample.image.dtype == np.float32
        assert (sample.label, sample.coils) == (None, None)
        assert metadata["slices"][name] == [len(slices) for slices in images]
        assert (split.samples.arrays is None) == (disk is True)
    subjects = np.concatenate([split.subjects for split in dataset])
    np.testing.assert_array_equal(subjects, np.repeat(np.arange(5), np.concatenate(list(metadata["slices"].values()))))


def test_the_metadata_name_subjects_files_and_reasons(prepared):
    root, _, folder_path = prepared
    metadata = data.metadata(folder_path)
    assert [len(group) for group in metadata["subjects"].values()] == [2, 1, 2]
    used = [name for group in metadata["subjects"].values() for name in group]
    assert sorted(used) == sorted(NAMES[:-1])
    assert metadata["dropped"] == {name: {EMPTY: 1} for name in used}
    assert metadata["notes"] == {name: [] for name in used}
    assert list(metadata["unusable"]) == ["fay"]
    assert "fay.npy must be" in metadata["unusable"]["fay"]
    files = {name: root / f"{name}.npy" for name in NAMES}
    assert metadata["files"] == {str(file): [file.stat().st_size, int(file.stat().st_mtime)] for file in files.values()}
    assert metadata["root"] == str(root)


def test_they_can_be_sent_to_another_process(prepared):
    split = data.read(prepared.folder, disk=True).train
    index = np.array([2, 0])
    with get_context("spawn").Pool(1) as pool:
        taken = pool.apply(split.samples.take, (index,))
    pool.join()
    np.testing.assert_array_equal(taken.image, all_samples(split).image[index])
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
def test_measured_kspace_is_stored_exactly(tmp_path, monkeypatch, disk):
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
        sample = all_samples(split)
        for actual, expected in zip(sample.coils, coils, strict=True):
            np.testing.assert_array_equal(actual, expected)
            assert actual.dtype == np.complex64
        assert split.samples.nbytes == image.nbytes + sum(array.nbytes for array in coils)


@pytest.mark.slow
def test_shards_change_nothing(prepared, tmp_path, monkeypatch):
    """Nor does a split larger than TFDS would sort in memory, for which it needs TensorFlow."""
    monkeypatch.setattr(builder, "SHARD", 1)
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1)
    path = prepare_again(prepared, cache=tmp_path / "cache")
    assert sorted(file.name for file in path.glob("*train*")) == [
        f"folder-train.array_record-0000{k}-of-00002" for k in range(2)
    ]
    for split, other in zip(data.read(path, disk=True), data.read(prepared.folder), strict=True):
        np.testing.assert_array_equal(all_samples(split).image, other.samples.arrays.image)
    population = data.mni(size=16, subjects=(3, 1, 1), slices=2, cache=tmp_path / "cache")
    monkeypatch.undo()
    usual = data.mni(size=16, subjects=(3, 1, 1), slices=2, cache=tmp_path / "other")
    np.testing.assert_array_equal(population.train.samples.arrays.image, usual.train.samples.arrays.image)


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(5, 1, [5]), (5, 2**28, [1] * 5), (4, 2**27, [2, 2]), (300, 2**30, None)]
)
def test_shards_hold_whole_subjects_in_order(count, size, lengths):
    shards = builder.split_into_shards(list(range(count)), size)
    assert [subject for shard in shards for subject in shard] == list(range(count))
    assert [len(shard) for shard in shards] == lengths or len(shards) == builder.MOST_SHARDS


def test_it_is_an_ordinary_builder_of_tfds(prepared, tmp_path):
    config = builder.FilesConfig(name="config", settings=SETTINGS, subjects=(2, 1, 2))
    folder_builder = builder.Folder(config=config, data_dir=tmp_path, file_format="array_record")
    with cache.silence_tfds():
        folder_builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=prepared.root))
    images = np.stack([example["image"] for example in folder_builder.as_data_source("train")])
    np.testing.assert_array_equal(np.divide(images, np.float32(65535)), all_samples(data.read(prepared.folder).train).image)
    assert not list(tmp_path.rglob("*.npz"))


# When they are prepared


def test_they_are_prepared_once(prepared, no_reading):
    assert prepare_again(prepared) == prepared.folder
    assert not list(prepared.cache.rglob("*.npz"))
    assert not list(prepared.cache.rglob("*incomplete*"))


def test_one_folder_has_one_name(prepared, no_reading, monkeypatch):
    root = prepared.root
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("HOME", str(root.parent))
    for name in ("scans", "scans/", "./scans", "../" + root.parent.name + "/scans", "~/scans", f"{root}/"):
        assert prepare_again(prepared, root=name) == prepared.folder


@pytest.mark.parametrize("change", [{"settings": SETTINGS._replace(size=24)}, {"seed": 1}, {"subjects": (1, 2, 2)}])
def test_other_settings_have_another_folder(prepared, no_reading, change):
    with pytest.raises(AssertionError, match="a subject was read"):
        prepare_again(prepared, **change)


def test_the_files_may_be_deleted(prepared, changing_root, no_reading):
    before = all_samples(data.read(prepared.folder).train).image
    (changing_root / "anna.npy").unlink()
    np.save(changing_root / "zoe.npy", pixels("zoe"))
    assert prepare_again(prepared) == prepared.folder
    for file in changing_root.iterdir():
        file.unlink()
    assert prepare_again(prepared) == prepared.folder
    changing_root.rmdir()
    np.testing.assert_array_equal(all_samples(data.read(prepare_again(prepared)).train).image, before)


def test_changed_files_are_named_and_prepared_again_when_their_folder_is_deleted(changing_root, tmp_path):
    prepared = Prepared(changing_root, tmp_path / "cache", None)
    path = prepare_again(prepared)
    before = data.read(path, disk=True)
    for name in NAMES[:-1]:
        np.save(changing_root / f"{name}.npy", pixels(name)[::-1])
        os.utime(changing_root / f"{name}.npy", (1e9, 1e9))
    with pytest.raises(InputError) as caught:
        prepare_again(prepared)
    assert f"`root` {changing_root} must hold the files that were prepared, but {changing_root}/" in str(caught.value)
    assert f"has changed since; delete {path} to" in str(caught.value)
    shutil.rmtree(path)
    assert prepare_again(prepared) == path
    after = data.read(path, disk=True)
    name = data.metadata(path)["subjects"]["val"][0]
    np.testing.assert_allclose(all_samples(after.val).image[..., 0], expected(name)[::-1], atol=0.5001 / 65535)
    assert after.val.samples.identity != before.val.samples.identity
    assert after.val.samples.identity == data.read(path, disk=True).val.samples.identity


def test_another_process_may_be_first(prepared, tmp_path, monkeypatch):
    """It finishes, and deletes the files of single subjects, while we pack our last subject."""
    load, calls = file_subjects.load_slices, []
    path = tmp_path / prepared.folder.relative_to(prepared.cache)

    def overtaken(subject):
        calls.append(subject)
        if len(calls) == 5:
            shutil.copytree(prepared.folder, path)
            shutil.rmtree(tmp_path / "unfinished")
        return load(subject)

    monkeypatch.setattr(file_subjects, "load_slices", overtaken)
    assert prepare_again(prepared, cache=tmp_path) == path
    assert len(calls) == 5
    assert data.read(path).train.samples.size == data.read(prepared.folder).train.samples.size
    assert not list(tmp_path.rglob("*incomplete*"))


def test_an_interruption_leaves_nothing_that_looks_complete(prepared, tmp_path, monkeypatch):
    def interrupted(subject):
        raise KeyboardInterrupt

    def not_again(files, settings):
        raise InputError("read again")

    monkeypatch.setattr(file_subjects, "load_slices", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_again(prepared, cache=tmp_path)
    monkeypatch.undo()
    assert {file for file in tmp_path.rglob("*") if file.is_file()} == set((tmp_path / "unfinished").rglob("*.npz"))
    monkeypatch.setattr(folder, "read", not_again)
    path = prepare_again(prepared, cache=tmp_path)
    assert data.metadata(path)["unusable"] == {"fay": "read again"}
    np.testing.assert_array_equal(
        all_samples(data.read(path).test).image, all_samples(data.read(prepared.folder).test).image
    )
    assert not list(tmp_path.rglob("*.npz"))


# Messages


def test_damage_is_reported_before_files_are_compared(prepared, tmp_path):
    copied_cache = shutil.copytree(prepared.cache, tmp_path / "cache")
    path = copied_cache / prepared.folder.relative_to(prepared.cache)
    (path / "metadata.json").write_text("{")
    with pytest.raises(InputError, match=f"{path} cannot be read .* delete that folder"):
        prepare_again(prepared, cache=copied_cache)


def test_a_cache_inside_of_the_files_is_refused(prepared, no_reading):
    root = prepared.root
    for inner in (root, root / "cache"):
        with pytest.raises(InputError, match=r"`cache` .*scans.* must lie outside of `root` .*scans"):
            prepare_again(prepared, cache=inner)
    with pytest.raises(AssertionError, match="a subject was read"):
        prepare_again(prepared, cache=root / ".cache")
    shutil.rmtree(root / ".cache")


def test_a_disk_that_fills_up_is_reported(tmp_path):
    """With the error of array_record."""
    full = RuntimeError(
        "write() failed: No space left on device; writing /cache/x; at byte 9; Failed to close chunk_writer"
    )
    with (
        pytest.raises(InputError, match=r"`cache` .* must be a folder that can be written to .*No space left"),
        prepare.write_into_cache(tmp_path, tmp_path / "new", 0, name="new"),
    ):
        raise full


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"subjects": (4, 1, 2)},
            r"`subjects` must be at most 6 together, as many as .*scans holds \(.*\), got \(4, 1, 2\)",
        ),
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
def test_wrong_arguments_are_named(prepared, tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        prepare_again(prepared, cache=tmp_path, **wrong)
    assert not list(tmp_path.rglob("*.json"))


def test_an_unknown_source_is_named(tmp_path):
    with pytest.raises(InputError, match="`source` must be one of fastmri, abide, folder, got 'mni'"):
        data.files_folder("mni", root=tmp_path, cache=tmp_path / "cache", **OPTIONS)
