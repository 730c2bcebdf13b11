"""Accidents: folders from somebody else, interruptions, damage, and two commands at once. Nothing is lost or executed."""

import ast
import contextlib
import errno
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from helper import ROOT

from hyperrecon_jax import data
from hyperrecon_jax.commands import train
from hyperrecon_jax.config import default_config
from hyperrecon_jax.data import cache as data_cache
from hyperrecon_jax.data import subjects
from hyperrecon_jax.evaluation import sweep
from hyperrecon_jax.runs import run_folder, slim_run
from hyperrecon_jax.runs.report import next_steps
from hyperrecon_jax.runtime import files
from hyperrecon_jax.runtime.errors import InputError

SETTINGS = {"size": 16, "subjects": (1, 1, 1), "slices": 1}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    data.mni(**SETTINGS, cache=root)
    return root


# A cache from somebody else.

CLASS = {"pythonClassName": "evil_feature.Tensor"}
EVIL = "import pathlib\npathlib.Path(__file__).with_suffix('.executed').touch()\n"


def change_json(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("features.json", lambda content: content.update(CLASS)),
        ("features.json", lambda content: content["featuresDict"]["features"]["image"].update(CLASS)),
        ("features.json", lambda content: content["featuresDict"]["features"].update(other={**CLASS, "tensor": {}})),
        ("features.json", lambda content: content.update({"type": "evil_feature.Tensor", "content": {}})),
        ("dataset_info.json", lambda content: content.update(features=CLASS)),
    ],
)
def test_a_cache_from_somebody_else_imports_nothing(cache, tmp_path, monkeypatch, name, change):
    """Its files name a class in a module of the working folder, which TFDS would import."""
    shutil.copytree(cache, tmp_path / "cache")
    (tmp_path / "evil_feature.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    (file,) = (tmp_path / "cache").rglob(name)
    change_json(file, change)
    with pytest.raises(InputError, match="names other classes than ours"):
        data.mni(**SETTINGS, cache=tmp_path / "cache")
    assert "evil_feature" not in sys.modules
    assert not list(tmp_path.rglob("*.executed"))


class Executed:
    """A pickle of it makes a folder where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_file_of_a_run_from_somebody_else_is_unpickled(tmp_path):
    """Weights, images, the scores of an evaluation that was interrupted, a prepared subject."""
    executed = tmp_path / "executed"
    content = np.array([Executed(executed)], dtype=object)
    np.save(tmp_path / "images.npy", content)
    for name in ("variables", "unfinished"):
        np.savez(tmp_path / f"{name}.npz", identity="a", score_psnr=content, image=content)
    with pytest.raises(InputError, match="cannot be read"):
        data.arrays(**dict.fromkeys(("train", "val", "test"), tmp_path / "images.npy"))
    with pytest.raises(InputError, match="cannot be read"):
        slim_run.read_steps(tmp_path)
    assert sweep._load_progress(tmp_path / "unfinished.npz", "a") == (0, {}, {})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        subjects.load_slices(
            subjects.SubjectFile("a", tmp_path / "variables.npz", {"dropped": {}, "notes": [], "skipped": {}})
        )
    assert not executed.exists()
    np.load(tmp_path / "images.npy", allow_pickle=True)
    assert executed.exists()


# Preparations that are killed.


def test_the_next_preparation_removes_what_a_killed_one_left(cache, tmp_path):
    """And what others left that nobody has continued for a month."""
    (folder,) = cache.rglob("2.0.0")
    folder = tmp_path / folder.relative_to(cache)
    unfinished = tmp_path / "unfinished"
    left = [folder.parent / "incomplete.ABC_2.0.0", unfinished / f"mni-{folder.parent.name}" / "tmp123", unfinished / "old"]
    recent = unfinished / "folder-recent"
    for path in (*left, recent):
        path.mkdir(parents=True)
    os.utime(unfinished / "old", (1e9, 1e9))
    assert data.mni(**SETTINGS, cache=tmp_path).test.samples.size == 1
    assert not any(path.exists() for path in left)
    assert recent.exists()


HOLDER = """
import sys, pathlib
from hyperrecon_jax.runtime import files
with files.lock_folder(pathlib.Path(sys.argv[1]), sys.argv[2]) as holder:
    print(holder == "", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def locked_by_another(folder, name):
    """Inside, another process has the lock of a folder."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder), name], **pipes) as holder:
        assert holder.stdout.readline() == "True\n"
        yield holder
        holder.stdin.close()


def test_a_second_preparation_of_the_same_data_waits(tmp_path, monkeypatch, capsys):
    (tmp_path / "unfinished").mkdir()
    name = ".mni-size16-subjects1x1x1-slices1-seed0.lock"
    with locked_by_another(tmp_path / "unfinished", name) as holder:
        monkeypatch.setattr(time, "sleep", lambda seconds: holder.stdin.close() or holder.wait())
        assert data.mni(**SETTINGS, cache=tmp_path).test.samples.size == 1
    assert f"Another command prepares the same data, process {holder.pid} on " in capsys.readouterr().err


# Two commands in one folder.


def test_a_second_command_in_a_folder_is_refused(tmp_path):
    with (
        locked_by_another(tmp_path, files.LOCK) as holder,
        pytest.raises(InputError, match=f"^Another command works in {tmp_path}, process {holder.pid} on .*: wait until it"),
        run_folder.lock(tmp_path),
    ):
        pass
    with run_folder.lock(tmp_path), run_folder.lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_leaves_no_folder(tmp_path):
    with run_folder.lock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with run_folder.lock(tmp_path / "file" / "run"):  # who writes there says why that is not possible
        pass
    with run_folder.lock(tmp_path / "c"):
        (tmp_path / "c" / "kept").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "file"]


# Workers.

PARENT = """
import multiprocessing, os, sys, time
from hyperrecon_jax.runtime.workers import end_with_parent

def work(pipe):
    end_with_parent()
    pipe.send(os.getpid())
    time.sleep(100)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    end, other = context.Pipe()
    context.Process(target=work, args=(other,)).start()
    print(end.recv(), flush=True)
    time.sleep(100)
"""


def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True) as parent:
        worker = psutil.Process(int(parent.stdout.readline()))
        assert worker.is_running()
        parent.kill()
        gone, alive = psutil.wait_procs([worker], timeout=20)
    assert (gone, alive) == ([worker], [])


# Trouble that is not damage.


def test_what_cannot_be_opened_is_not_to_be_deleted(cache, tmp_path, monkeypatch):
    """A full table of open files, a disk that is gone for a while: what is on the disk may be whole."""

    def fail(*args, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    run_folder.write_json(tmp_path / run_folder.SUMMARY, {"steps": 3})
    run_folder.write_magnitudes(tmp_path, {"mae": 1.0})
    monkeypatch.setattr(pathlib.Path, "read_text", fail)
    data_cache.forget_open_folders()
    (folder,) = cache.rglob("2.0.0")
    for read in (
        lambda: run_folder.steps_reported(tmp_path),
        lambda: run_folder.read_magnitudes(tmp_path, ["mae"]),
        lambda: data.metadata(folder),
    ):
        with pytest.raises(InputError, match="Too many open files") as caught:
            read()
        assert "delete" not in str(caught.value)


def test_a_cache_with_brackets_and_stars_in_its_name_is_one_like_others(tmp_path):
    dataset = data.mni(**SETTINGS, cache=tmp_path / "[a] *?b")
    assert [split.samples.size for split in dataset] == [1, 1, 1]


def test_the_package_can_be_imported_where_a_module_of_unix_is_missing():
    """Windows has neither `fcntl` nor `resource`; no module imports them where it is imported itself."""
    for path in (ROOT / "hyperrecon_jax").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "")]
            assert not {"fcntl", "resource", "pwd", "termios"} & {*names}, path


def test_a_training_in_a_folder_of_another_is_refused_at_its_start(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "build", None)
    with (
        locked_by_another(tmp_path, files.LOCK),
        pytest.raises(InputError, match=f"Another command works in {tmp_path}, process"),
    ):
        train.train(default_config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_the_next_commands_can_be_pasted_for_a_folder_with_spaces():
    folder = pathlib.Path("my runs", "it's [1]")
    text = next_steps(default_config(), folder)
    explore, show = (
        re.search(" explore (.*) to move", text.replace("bin.", ""))[1],
        re.search("tensorboard (--logdir .*) .pip", text)[1],
    )
    assert shlex.split(explore) == ["--run", str(folder)]
    assert shlex.split(show) == ["--logdir", str(folder / "tensorboard")]
