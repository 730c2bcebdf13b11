"""Which subjects of a folder are read, into which split; no subject is read twice."""

import errno
import hashlib
import multiprocessing
import os
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from hyperrecon_jax.data import subjects as module
from hyperrecon_jax.data.sources import folder
from hyperrecon_jax.data.sources.base import EMPTY, Settings, Slices
from hyperrecon_jax.physics.sample import Coils
from hyperrecon_jax.runtime.errors import InputError

SETTINGS = Settings(size=16, slices=100, coils=0, acquisition="", whiten=False)
NAMES = [f"subject {k}" for k in range(7)]


def pixels(seed):
    return np.random.default_rng(seed).random((2, 16, 16), np.float32)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "scans").mkdir()
    for k, name in enumerate(NAMES):
        np.save(tmp_path / "scans" / f"{name}.npy", pixels(k))
    return tmp_path / "scans"


@pytest.fixture
def reads(monkeypatch):
    """The names of the subjects that are read, in order."""
    read, calls = folder.read, []

    def counted(files, settings):
        calls.append(files[0].stem)
        return read(files, settings)

    monkeypatch.setattr(folder, "read", counted)
    return calls


def prepare(root, *, counts=(4, 2, 1), seed=0, workers=1):
    files = module.find_subjects("folder", root, SETTINGS, counts=counts)
    unfinished = root.parent / "unfinished"
    return module.read_subjects("folder", files, SETTINGS, counts=counts, seed=seed, unfinished=unfinished, workers=workers)


def names(splits):
    return {split: [result.subject for result in group] for split, group in splits.items()}


@pytest.fixture
def split_of(monkeypatch, tmp_path):
    """The splits of subjects of which some cannot be used; no file is read."""

    def split(subjects, counts, *, seed=0, bad=()):
        def read_subject(job):
            return module.SubjectFile(job.subject, None if job.subject in bad else Path(__file__), {"error": "bad"})

        monkeypatch.setattr(module, "_read_subject", read_subject)
        files = {name: [] for name in subjects}
        splits, failed = module.read_subjects(
            "folder", files, SETTINGS, counts=counts, seed=seed, unfinished=tmp_path / "unfinished"
        )
        return names(splits), [result.subject for result in failed]

    return split


# Splits


def test_splits_share_no_subject_and_are_full(split_of):
    splits, failed = split_of(NAMES, (3, 2, 1))
    assert list(splits) == ["train", "val", "test"]
    assert [len(split) for split in splits.values()] == [3, 2, 1]
    assert len({name for split in splits.values() for name in split}) == 6
    assert not failed


def test_splits_follow_a_hash_of_the_seed_and_the_name(split_of):
    for seed in (0, 5):
        order = sorted(NAMES, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
        splits, _ = split_of(NAMES[::-1], (3, 2, 1), seed=seed)
        assert splits == {"test": order[:1], "val": order[1:3], "train": order[3:6]}


def test_other_seeds_test_other_subjects(split_of):
    assert {split_of(NAMES, (5, 1, 1), seed=seed)[0]["test"][0] for seed in range(40)} == set(NAMES)


def test_more_training_subjects_leave_the_other_splits_as_they_are(split_of):
    few, more = (split_of(NAMES, (count, 2, 1))[0] for count in (1, 4))
    assert (few["test"], few["val"]) == (more["test"], more["val"])
    assert more["train"][:1] == few["train"]


def test_a_subject_more_moves_at_most_one_across_each_border(split_of):
    """And in one direction: from the test to validation to training to not used."""
    people = [f"p{k}" for k in range(20)]
    before, _ = split_of(people, (8, 4, 3))
    order = ["test", "val", "train", "out"]
    old_place = {name: order.index(split) for split, group in before.items() for name in group}
    for k in range(30):
        after, _ = split_of([*people, f"new{k}"], (8, 4, 3))
        new_place = {name: order.index(split) for split, group in after.items() for name in group}
        places = [(old_place.get(name, 3), new_place.get(name, 3)) for name in people]
        moves = [(old, new) for old, new in places if old != new]
        assert all(new == old + 1 for old, new in moves)
        assert len(set(moves)) == len(moves)


def test_the_next_subjects_replace_unusable_ones(split_of):
    splits, _ = split_of(NAMES, (2, 1, 1))
    order = [*splits["test"], *splits["val"], *splits["train"]]
    without, failed = split_of(NAMES, (2, 1, 1), bad=[order[0], order[2]])
    assert failed == [order[0], order[2]]
    assert (without["test"], without["val"]) == ([order[1]], [order[3]])
    assert split_of([name for name in NAMES if name not in failed], (2, 1, 1)) == (without, [])


def test_too_few(root, split_of):
    with pytest.raises(
        InputError, match=r"`subjects` must be at most 7 together, as many as .*scans holds \(.*\), got \(4, 3, 1\)"
    ):
        module.find_subjects("folder", root, SETTINGS, counts=(4, 3, 1))
    with pytest.raises(InputError, match=r"at most the 5 that can be used, got \(3, 2, 1\); 2 cannot: .*subject \d: bad"):
        split_of(NAMES, (3, 2, 1), bad=NAMES[2:4])


# Reading


@pytest.mark.parametrize("workers", [1, 2])
def test_the_stored_slices_are_those_of_the_source(root, workers, capfd):
    splits, failed = prepare(root, workers=workers)
    for result in [result for group in splits.values() for result in group]:
        expected = pixels(NAMES.index(result.subject))
        image, label, coils, dropped, *_ = module.load_slices(result)
        np.testing.assert_allclose(image, expected / expected.max(), atol=1e-7)
        assert (label, coils, dropped) == (None, None, {EMPTY: 0})
        file = root / f"{result.subject}.npy"
        status = file.stat()
        assert result.summary == {
            "slices": 2,
            "dropped": {EMPTY: 0},
            "notes": [],
            "skipped": {},
            "files": {str(file): [status.st_size, int(status.st_mtime)]},
        }
    assert names(splits) == names(prepare(root)[0])
    assert not failed
    assert "7/7" in capfd.readouterr().err


def test_labels_and_coils_are_stored(root, monkeypatch):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, (2, 16, 16), np.uint8)
    coils = Coils(*(rng.random((2, 2, 3, 16, 16)).astype(np.complex64) * 1j))
    monkeypatch.setattr(folder, "read", lambda files, settings: Slices(pixels(0), label, coils, {"noise": 3}))
    splits, _ = prepare(root, counts=(1, 1, 1))
    slices = module.load_slices(splits["train"][0])
    np.testing.assert_array_equal(slices.label, label)
    np.testing.assert_array_equal(slices.coils.kspace, coils.kspace)
    np.testing.assert_array_equal(slices.coils.maps, coils.maps)
    assert slices.dropped == {"noise": 3}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_preparation_reads_no_subject_again(root, reads, monkeypatch, stop):
    counted = folder.read

    def interrupted(files, settings):
        if len(reads) == 3:
            raise stop
        return counted(files, settings)

    monkeypatch.setattr(folder, "read", interrupted)
    with pytest.raises(stop):
        prepare(root)
    monkeypatch.setattr(folder, "read", counted)
    splits, _ = prepare(root)
    assert sorted(reads) == NAMES
    assert [len(split) for split in splits.values()] == [4, 2, 1]


def test_subjects_read_for_a_failed_call_are_not_read_again(root, reads, capsys):
    (root / "subject 1.npy").write_bytes(b"text")
    with pytest.raises(
        InputError, match=r"at most the 6 that can be used, got \(4, 2, 1\); 1 cannot: subject 1: .*npy must be"
    ):
        prepare(root)
    assert "cannot be used: subject 1: " in capsys.readouterr().err
    assert len(reads) == 7
    splits, _ = prepare(root, counts=(3, 2, 1), seed=1)
    assert set(reads[7:]) <= {"subject 1"}  # it may be mended by now
    assert "subject 1" not in [name for split in names(splits).values() for name in split]


def test_changed_and_damaged_files_are_read_again(root, reads):
    splits, _ = prepare(root)
    first, second, *others = [result for group in splits.values() for result in group]
    second.file.write_bytes(second.file.read_bytes()[:99])
    np.save(root / f"{first.subject}.npy", pixels(99))
    os.utime(root / f"{first.subject}.npy", (1e9, 1e9))
    second_run, _ = prepare(root)
    assert sorted(reads[7:]) == sorted([first.subject, second.subject])
    assert names(second_run) == names(splits)
    (changed,) = [result for group in second_run.values() for result in group if result.subject == first.subject]
    np.testing.assert_allclose(module.load_slices(changed).image, pixels(99) / pixels(99).max(), atol=1e-7)
    assert {result.file for group in second_run.values() for result in group} >= {result.file for result in others}


def test_two_may_read_the_same_subject_at_once(root, monkeypatch):
    """Another process reads all subjects while we read the first."""
    read, calls = folder.read, []

    def overtaken(files, settings):
        calls.append(files)
        if len(calls) == 1:
            prepare(root)
        return read(files, settings)

    monkeypatch.setattr(folder, "read", overtaken)
    splits, _ = prepare(root)
    assert len(calls) == 8  # one of them twice
    for result in splits["train"]:
        expected = pixels(NAMES.index(result.subject))
        np.testing.assert_allclose(module.load_slices(result).image, expected / expected.max(), atol=1e-7)
    assert len(list((root.parent / "unfinished").iterdir())) == 7


def test_a_file_that_the_system_cannot_read_is_unusable(root, monkeypatch):
    read = folder.read

    def failing(files, settings):
        if files[0].stem == "subject 2":
            raise OSError(errno.EIO, "Input/output error", str(files[0]))
        return read(files, settings)

    monkeypatch.setattr(folder, "read", failing)
    _, (failed,) = prepare(root, counts=(4, 1, 1))
    assert (failed.subject, failed.file) == ("subject 2", None)
    assert "Input/output error" in failed.summary["error"]


def test_a_folder_that_cannot_be_listed_is_named(root, monkeypatch):
    def failing(root, settings):
        raise PermissionError(errno.EACCES, "Permission denied", str(root))

    monkeypatch.setattr(folder, "find", failing)
    with pytest.raises(InputError, match=r"`root` .*scans must be a folder that can be read: .*Permission denied"):
        prepare(root)


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_process_that_dies_is_reported(root):
    jobs = [module._Job("folder", name, [], Deadly(), root) for name in NAMES]
    with pytest.raises(InputError, match=r"`workers` must be fewer than 2: one of them was ended from outside"):
        list(module._read_batch(jobs, 2))


def test_interrupted_workers_print_nothing(root, tmp_path, monkeypatch):
    """The thread that leads the workers must not fail when they are ended before their subjects are read."""
    errors = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    source = {name: [root / f"{name}.npy"] for name in NAMES}
    jobs = [module._Job("folder", name, files, SETTINGS, tmp_path) for name, files in source.items()]
    results = module._read_batch(jobs, 2)
    next(results)
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)
    assert not errors
    assert not multiprocessing.active_children()


def test_a_disk_too_small_is_reported_after_the_first_subject(root, reads, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 30_000))
    with pytest.raises(
        InputError, match=r"`cache` must have room, .* 30\.0 kB are left and 7 subjects .* need about \d\d\.\d kB"
    ):
        prepare(root)
    assert len(reads) == 1


# Changed files


def test_changed_files(tmp_path):
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_text("one")
    stamps = module.file_stamps([*files, tmp_path / "gone"])
    assert list(stamps) == [str(file) for file in files]
    assert stamps[str(files[0])] == [3, int(files[0].stat().st_mtime)]
    files[0].unlink()
    (tmp_path / "new").touch()
    assert module.changed_file(stamps) is None
    os.utime(files[1], (1e9, 1e9))
    assert module.changed_file(stamps) == str(files[1])
    os.utime(files[1], (stamps[str(files[1])][1],) * 2)
    assert module.changed_file(stamps) is None
    files[2].write_text("more")
    os.utime(files[2], (stamps[str(files[2])][1],) * 2)
    assert module.changed_file(stamps) == str(files[2])
