"""Checkpoints: which of them stay, and the messages for damaged ones and for full disks."""

import contextlib
import gc
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


def save(folder, losses, *, earlier=None):
    """Save checkpoints and validate each; `earlier` holds the losses of those that were saved before."""
    earlier = {} if earlier is None else earlier
    with checkpoint.manager(folder, keep=2, losses=earlier) as checkpoints:
        for step, loss in losses.items():
            checkpoint.save(checkpoints, STATE._replace(step=np.int32(step)), SETTINGS)
            earlier[step] = loss


def steps(folder):
    return sorted(int(path.name) for path in (folder / run_folder.CHECKPOINTS).iterdir())


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_saved_and_restored_is_the_same(tmp_path):
    save(tmp_path, {3: 0.1})
    with checkpoint.manager(tmp_path, keep=2) as checkpoints:
        state = checkpoint.restore(checkpoints, jax.tree.map(jnp.zeros_like, STATE))
    jax.tree.map(np.testing.assert_array_equal, state, STATE._replace(step=np.int32(3)))


def test_the_best_stays_also_when_a_run_is_resumed(tmp_path):
    earlier = {}
    for losses, expected in (({1: 0.5, 2: 0.1, 3: 0.4}, [2, 3]), ({4: 0.3}, [2, 3, 4]), ({5: 0.2}, [2, 4, 5])):
        save(tmp_path, losses, earlier=earlier)
        assert steps(tmp_path) == expected


def test_a_checkpoint_without_validation_is_not_the_best(tmp_path):
    """Nor is a checkpoint whose loss is NaN, or one that was deleted."""
    save(tmp_path, {1: np.nan, 2: 0.3, 3: 0.4}, earlier={0: 0.1})
    with checkpoint.manager(tmp_path, keep=1, losses={0: 0.1, 2: 0.3, 4: 0.2}) as checkpoints:
        for step in (5, 6):
            checkpoint.save(checkpoints, STATE._replace(step=np.int32(step)), SETTINGS)
    assert steps(tmp_path) == [2, 6]


def test_an_unfinished_checkpoint_of_a_killed_run_is_deleted(tmp_path):
    save(tmp_path, {1: 0.5})
    (tmp_path / run_folder.CHECKPOINTS / "2.orbax-checkpoint-tmp").mkdir()
    save(tmp_path, {2: 0.4})
    assert steps(tmp_path) == [1, 2]


# Damage.


@pytest.fixture(scope="module")
def ignored_exceptions():
    """Until the end of the module: what the tests leave is collected there, once, because that takes long."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "unraisablehook", lambda _: None)
        yield
        time.sleep(0.1)
        gc.collect()


@pytest.fixture
def quiet_threads(ignored_exceptions):
    """Orbax reads and writes in threads; when one fails, the messages of the others do not concern the test."""
    with warnings.catch_warnings(action="ignore"):
        yield


@pytest.mark.usefixtures("quiet_threads")
@pytest.mark.parametrize("damage", ["emptied", "overwritten", "removed"])
@pytest.mark.parametrize("part", ["state", "state/manifest.ocdbt", "state/_METADATA", "state/d", "state/ocdbt.process_0"])
def test_a_damaged_checkpoint_is_named_and_left(tmp_path, part, damage):
    """One of the files is not needed to restore: without it the numbers are right."""
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


def test_a_disk_that_fills_up_keeps_what_was_saved(tmp_path, monkeypatch):
    save(tmp_path, {1: 0.5})
    before = contents(tmp_path)
    fill_disk(monkeypatch, 0)
    with pytest.raises(InputError, match="has 0 MiB free"):
        save(tmp_path, {2: 0.4})
    assert contents(tmp_path) == before
