"""The folder of a run: whose it is, what stays in it, and what a damaged or full one is told."""

import contextlib
import errno
import gc
import json
import shutil
import sys
import time
import warnings
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrecon_jax.runs import checkpoint, run_folder
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training.step import TrainState

NOISE = np.random.default_rng(0).random(10_000, np.float32)  # enough for files of its own in a checkpoint
STATE = TrainState(jnp.zeros((), jnp.int32), {"kernel": jnp.asarray(NOISE)}, {}, {"mu": jnp.ones(3)})
SETTINGS = {"train": {"steps": 5}}


def differences(old, new):
    return [key for key in new if old[key] != new[key]]


def save(folder, losses, *, known=None):
    """Checkpoints, of which each is validated once it is saved; `known` has the losses of those before."""
    known = {} if known is None else known
    with checkpoint.manager(folder, keep=2, losses=known) as checkpoints:
        for step, loss in losses.items():
            checkpoint.save(checkpoints, STATE._replace(step=np.int32(step)), SETTINGS)
            known[step] = loss


def steps(folder):
    return sorted(int(path.name) for path in (folder / run_folder.CHECKPOINTS).iterdir())


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_saved_and_restored_is_the_same(tmp_path):
    save(tmp_path, {3: 0.1})
    with checkpoint.manager(tmp_path, keep=2) as checkpoints:
        state = checkpoint.restore(checkpoints, jax.tree.map(jnp.zeros_like, STATE))
    jax.tree.map(np.testing.assert_array_equal, state, STATE._replace(step=np.int32(3)))


def test_the_best_stays_also_when_a_run_goes_on(tmp_path):
    known = {}
    for losses, kept in (({1: 0.5, 2: 0.1, 3: 0.4}, [2, 3]), ({4: 0.3}, [2, 3, 4]), ({5: 0.2}, [2, 4, 5])):
        save(tmp_path, losses, known=known)
        assert steps(tmp_path) == kept


def test_one_that_was_not_validated_is_not_the_best(tmp_path):
    """Nor is one of a loss that is no number, or one that is gone."""
    save(tmp_path, {1: np.nan, 2: 0.3, 3: 0.4}, known={0: 0.1})
    with checkpoint.manager(tmp_path, keep=1, losses={0: 0.1, 2: 0.3, 4: 0.2}) as checkpoints:
        for step in (5, 6):
            checkpoint.save(checkpoints, STATE._replace(step=np.int32(step)), SETTINGS)
    assert steps(tmp_path) == [2, 6]


def test_what_a_killed_run_left_unfinished_goes(tmp_path):
    save(tmp_path, {1: 0.5})
    (tmp_path / run_folder.CHECKPOINTS / "2.orbax-checkpoint-tmp").mkdir()
    save(tmp_path, {2: 0.4})
    assert steps(tmp_path) == [1, 2]


# Whose folder it is.


def test_an_empty_or_missing_folder_is_new(tmp_path):
    """Also one of a run that was killed as it wrote its settings."""
    assert not run_folder.can_resume(tmp_path, SETTINGS, differences)
    assert not run_folder.can_resume(tmp_path / "a" / "b", SETTINGS, differences)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "config.json.partial").write_text("{")
    assert not run_folder.can_resume(tmp_path, SETTINGS, differences)


def test_the_same_experiment_goes_on_and_another_is_refused(tmp_path):
    run_folder.create_workdir(tmp_path / "run", SETTINGS, size=0)
    assert run_folder.can_resume(tmp_path / "run", SETTINGS, differences)
    with pytest.raises(
        InputError, match=r"^The work folder .*run holds another experiment: train; choose another --workdir"
    ):
        run_folder.can_resume(tmp_path / "run", {"train": {"steps": 6}}, differences)


@pytest.mark.parametrize("content", [b"", b'{"train": ', b"\xff\xfe", b"[1, 2]"])
def test_damaged_settings_are_named(tmp_path, content):
    def strict(old, new):
        return differences(dict(old.items()), new)

    (tmp_path / run_folder.CONFIG).write_bytes(content)
    with pytest.raises(InputError, match=f"^The work folder {tmp_path} holds no experiment of this version"):
        run_folder.can_resume(tmp_path, SETTINGS, strict)


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match=r"is not empty and holds no config\.json: choose another --workdir"):
        run_folder.can_resume(tmp_path, SETTINGS, differences)
    for folder in (tmp_path / "thesis.txt", tmp_path / "thesis.txt" / "run"):
        with pytest.raises(InputError, match=r"cannot be used, since .*thesis\.txt is not a folder"):
            run_folder.can_resume(folder, SETTINGS, differences)


# Damage.


@pytest.fixture
def quiet_threads(monkeypatch):
    """Orbax reads and writes in threads; when one fails, what the others say is not about the test."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    with warnings.catch_warnings(action="ignore"):
        yield
        time.sleep(0.1)
        gc.collect()


@pytest.mark.usefixtures("quiet_threads")
@pytest.mark.parametrize("damage", ["emptied", "overwritten", "removed"])
@pytest.mark.parametrize("part", ["state", "state/manifest.ocdbt", "state/_METADATA", "state/d", "state/ocdbt.process_0"])
def test_a_damaged_checkpoint_is_named_and_left(tmp_path, part, damage):
    """Unless the damaged file is one that restoring does without: then the numbers are right."""
    save(tmp_path, {1: 0.5})
    damaged = tmp_path / run_folder.CHECKPOINTS / "1" / part
    files = [damaged] if damaged.is_file() else [path for path in damaged.rglob("*") if path.is_file()]
    assert files
    for path in files:
        if damage == "removed":
            path.unlink()
        else:
            path.write_bytes(b"" if damage == "emptied" else np.random.default_rng(0).bytes(path.stat().st_size))
    before = contents(tmp_path)
    message = f"^The checkpoint {tmp_path}/checkpoints/1 cannot be read .*delete that folder"
    refused = (
        contextlib.nullcontext()
        if (part, damage) == ("state/_METADATA", "removed")
        else pytest.raises(InputError, match=message)
    )
    with checkpoint.manager(tmp_path, keep=2) as checkpoints, refused:
        state = checkpoint.restore(checkpoints, STATE)
        jax.tree.map(np.testing.assert_array_equal, state, STATE._replace(step=np.int32(1)))
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("quiet_threads")
def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    save(tmp_path, {1: 0.5})
    with (
        checkpoint.manager(tmp_path, keep=2) as checkpoints,
        pytest.raises(InputError, match="checkpoints/1 cannot be read"),
    ):
        checkpoint.restore(checkpoints, STATE._replace(params={"kernel": jnp.zeros((20, 20))}))


# A full disk.


def fill_disk(monkeypatch, free):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40 - free, free))


def test_too_little_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    fill_disk(monkeypatch, 3 * 2**20)
    with pytest.raises(InputError, match=r"has 3 MiB free and 20 MiB are needed; what was saved before is kept"):
        run_folder.create_workdir(tmp_path / "a" / "run", SETTINGS, size=4 * 2**20)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_keeps_what_was_saved(tmp_path, monkeypatch):
    save(tmp_path, {1: 0.5})
    before = contents(tmp_path)
    fill_disk(monkeypatch, 0)
    with pytest.raises(InputError, match="has 0 MiB free"):
        save(tmp_path, {2: 0.4})
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: Error writing \"a/0\": Failed to write 9 bytes [os_error_code='28']"),
    ],
)
def test_a_write_that_fails_becomes_one_sentence(tmp_path, error):
    with (
        pytest.raises(
            InputError, match=f"^The work folder {tmp_path} cannot be written: No space left on device; what was"
        ),
        run_folder.explain_write_errors(tmp_path),
    ):
        raise error


@pytest.mark.parametrize("error", [ValueError("a defect"), InputError("as it is"), KeyError("a defect")])
def test_other_errors_pass(tmp_path, error):
    with pytest.raises(type(error)) as caught, run_folder.explain_write_errors(tmp_path):
        raise error
    assert caught.value is error


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    run_folder.write_json(tmp_path / "a.json", {"a": 1})

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        run_folder.write_json(tmp_path / "a.json", {"a": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
