"""The synthetic population in the cache: prepared once, reused, never incomplete, and damage is named."""

import shutil
import tempfile
from collections import namedtuple

import numpy as np
import pytest

from hyperrecon_jax import data
from hyperrecon_jax.data import population
from hyperrecon_jax.runtime.errors import InputError

SETTINGS = {"size": 32, "subjects": (2, 1, 1), "slices": 3}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    data.mni(**SETTINGS, cache=root)
    return root


@pytest.fixture
def no_synthesis(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a subject was synthesized although the cache had it")

    monkeypatch.setattr(population, "synthesize_subject", refuse)


def files(root):
    return {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


def test_the_cache_holds_the_synthesized_subjects(cache, no_synthesis, monkeypatch):
    before = files(cache)
    dataset = data.mni(**SETTINGS, cache=cache)
    assert files(cache) == before
    monkeypatch.undo()
    seeds = population.split_seeds(0, SETTINGS["subjects"])
    start = 0
    for split, split_seeds in zip(dataset, seeds, strict=True):
        subjects = [population.synthesize_subject(s, size=32, slices=3) for s in split_seeds]
        np.testing.assert_allclose(
            split.samples.arrays.image, np.concatenate([subject.images for subject in subjects]), atol=0.5001 / 65535
        )
        np.testing.assert_array_equal(split.samples.arrays.label, np.concatenate([subject.labels for subject in subjects]))
        np.testing.assert_array_equal(split.subjects, np.repeat(np.arange(len(subjects)) + start, 3))
        assert split.samples.arrays.image.dtype == np.float32
        assert split.samples.arrays.label.dtype == np.uint8
        assert split.subjects.dtype == np.int32
        start += len(subjects)


def test_a_preparation_leaves_no_temporary_files(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    data.mni(size=16, subjects=(1, 1, 1), slices=1, cache=tmp_path / "cache")
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("change", [{"size": 40}, {"slices": 4}, {"seed": 1}, {"subjects": (1, 2, 1)}])
def test_other_settings_have_another_folder(cache, no_synthesis, change):
    with pytest.raises(AssertionError, match="a subject was synthesized"):
        data.mni(**(SETTINGS | change), cache=cache)


def test_another_recipe_has_another_folder(cache, no_synthesis, monkeypatch):
    import tensorflow_datasets as tfds

    from hyperrecon_jax.data import builder

    monkeypatch.setattr(builder, "RECIPE", "9.0.0")
    monkeypatch.setattr(builder.MniPopulation, "VERSION", tfds.core.Version("9.0.0"))
    with pytest.raises(AssertionError, match="a subject was synthesized"):
        data.mni(**SETTINGS, cache=cache)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_preparation_leaves_nothing_that_looks_complete(tmp_path, monkeypatch, stop):
    synthesize = population.synthesize_subject
    subjects = []

    def interrupted(*args, **kwargs):
        if len(subjects) == 3:
            raise stop
        subjects.append(synthesize(*args, **kwargs))
        return subjects[-1]

    monkeypatch.setattr(population, "synthesize_subject", interrupted)
    with pytest.raises(stop):
        data.mni(**SETTINGS, cache=tmp_path)
    assert not files(tmp_path)
    monkeypatch.undo()
    assert data.mni(**SETTINGS, cache=tmp_path).test.samples.size == 3


def test_two_processes_may_prepare_the_same_data_at_once(cache, tmp_path, monkeypatch):
    """Another process finishes while we synthesize our last subject."""
    synthesize = population.synthesize_subject
    calls = []

    def overtaken(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
        return synthesize(*args, **kwargs)

    monkeypatch.setattr(population, "synthesize_subject", overtaken)
    dataset = data.mni(**SETTINGS, cache=tmp_path)
    assert len(calls) == 4
    assert [split.samples.size for split in dataset] == [6, 3, 3]
    assert not list(tmp_path.rglob("*incomplete*"))


@pytest.mark.parametrize("name", ["dataset_info.json", "mni_population-train.array_record-00000-of-00001"])
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], None])
def test_damage_names_the_folder_to_delete(cache, tmp_path, name, damage):
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    (file,) = tmp_path.rglob(name)
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError) as caught:
        data.mni(**SETTINGS, cache=tmp_path)
    assert f"{file.parent} cannot be read" in str(caught.value)
    assert "delete that folder" in str(caught.value)


def test_a_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"`cache` .*file.* must be a folder that can be written to"):
        data.mni(**SETTINGS, cache=tmp_path / "file" / "cache")


def test_a_full_disk_is_named_before_work_begins(tmp_path, monkeypatch, no_synthesis):
    usage = namedtuple("usage", "total used free")(10, 9, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"`cache` .* 1 bytes are left and the data need up to 36\.9 kB"):
        data.mni(**SETTINGS, cache=tmp_path)


def test_stdout_stays_clean(tmp_path, capsys):
    data.mni(size=16, subjects=(1, 1, 1), slices=1, cache=tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "preparing data" in captured.err
    assert "Dataset" not in captured.err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 90}, "`size` must be a positive multiple of 8 .* got 90"),
        ({"size": 0}, "`size` must be"),
        ({"slices": 0}, "`slices` must be a positive whole number, got 0"),
        ({"subjects": (3, 0, 1)}, r"`subjects` must be three positive whole numbers .* got \(3, 0, 1\)"),
        ({"subjects": 3}, "`subjects` must be three"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0, got -1"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        data.mni(**(SETTINGS | wrong), cache=tmp_path)
