"""Checkpoints: which of them stay, and the messages for damaged ones and for full disks."""

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


def save(folder, losses, *, earlier=None):
    """Save checkpoints and validate each; `earlier` holds the losses of those that were saved before."""
    earlier = {} if earlier is None else earlier
    with checkpoint.manager(folder, keep=2, losses=earlier) as checkpoints:
        for step, loss in losses.items():
            checkpoint.save(checkpoints, STATE._replace(step=jnp.int32(step)), SETTINGS)
            earlier[step] = loss


def steps(folder):
    return sorted(int(path.name) for path in (folder / run_folder.CHECKPOINTS).iterdir())


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_saved_and_restored_is_the_same(tmp_path):
    save(tmp_path, {3: 0.1})
    with checkpoint.manager(tmp_path, keep=2) as checkpoints:
        state = checkpoint.restore(checkpoints, jax.tree.map(jnp.zeros_like, STATE))
    jax.tree.map(np.testing.assert_array_equal, state, STATE._replace(step=jnp.int32(3)))


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
            checkpoint.save(checkpoints, STATE._replace(step=jnp.int32(step)), SETTINGS)
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
    message = (
        f"^The checkpoint {tmp_path}/checkpoints/1 is damaged: its file state/.* is not the one that was written; delete"
    )
    with checkpoint.manager(tmp_path, keep=2) as checkpoints, pytest.raises(InputError, match=message):
        checkpoint.restore(checkpoints, STATE)
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("quiet_threads")
def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    save(tmp_path, {1: 0.5})
    with (
        checkpoint.manager(tmp_path, keep=2) as checkpoints,
        pytest.raises(InputError, match="checkpoints/1 cannot be read"),
    ):
        checkpoint.restore(checkpoints, STATE._replace(params={"kernel": jnp.zeros((20, 20))}))


# Trouble that is not damage, and damage that nobody sees.


def flip_bit(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def test_every_flipped_bit_is_seen_and_the_checkpoint_before_is_offered(tmp_path):
    """Without checksums some of them load other weights in silence."""
    save(tmp_path, {1: 0.5, 2: 0.4})
    folder = tmp_path / run_folder.CHECKPOINTS / "2"
    paths = [folder / name for name in json.loads((folder / checkpoint.CHECKSUMS).read_text())]
    assert {*folder.glob("state/**/d/*")} < {*paths}
    rng = np.random.default_rng(0)
    with checkpoint.manager(tmp_path, keep=2) as checkpoints:
        for k in range(60):
            path = paths[k % len(paths)]
            content = path.read_bytes()
            flip_bit(path, rng)
            with pytest.raises(InputError, match="2 is damaged: its file .* delete that folder to go on from step 1"):
                checkpoint.restore(checkpoints, STATE)
            path.write_bytes(content)
        assert int(checkpoint.restore(checkpoints, STATE).step) == 2


@pytest.mark.usefixtures("quiet_threads")
def test_trouble_with_a_checkpoint_that_is_not_damaged_advises_no_deletion(tmp_path, monkeypatch):
    save(tmp_path, {1: 0.5})

    def fail(*args, **options):
        raise ValueError("Too many open files")

    with checkpoint.manager(tmp_path, keep=2) as checkpoints:
        monkeypatch.setattr(checkpoints, "restore", fail)
        with pytest.raises(
            InputError, match=r"1 cannot be read \(ValueError: Too many open files\); its files are as"
        ) as caught:
            checkpoint.restore(checkpoints, STATE)
    assert "delete" not in str(caught.value)
    monkeypatch.setattr(checkpoint.ocp, "CheckpointManager", fail)
    with pytest.raises(InputError, match="cannot be opened") as caught:
        checkpoint.manager(tmp_path, keep=2)
    assert "delete" not in str(caught.value)


def test_a_checkpoint_of_an_earlier_version_has_no_checksums_and_is_read(tmp_path):
    save(tmp_path, {1: 0.5})
    (tmp_path / run_folder.CHECKPOINTS / "1" / checkpoint.CHECKSUMS).unlink()
    with checkpoint.manager(tmp_path, keep=2) as checkpoints:
        assert int(checkpoint.restore(checkpoints, STATE).step) == 1


def test_a_folder_with_brackets_and_stars_in_its_name_is_one_like_others(tmp_path):
    folder = tmp_path / "lr=[2e-3] *?"
    folder.mkdir()
    save(folder, {1: 0.5, 2: 0.4})
    checkpoint.check_saved(folder, STATE._replace(step=jnp.int32(2)))


def test_what_was_saved_is_compared_with_what_is_read_back(tmp_path):
    save(tmp_path, {1: 0.5})
    saved = STATE._replace(step=jnp.int32(1))
    checkpoint.check_saved(tmp_path, saved)
    for other in (saved._replace(step=jnp.int32(2)), saved._replace(opt_state={"mu": jnp.full(3, 2.0)})):
        with pytest.raises(InputError, match="cannot be read back"):
            checkpoint.check_saved(tmp_path, other)


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
