"""The cache folder, files that replace others, and the lock of a folder."""

import errno
import fcntl
import os
import platform
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hyperrecon_jax.runtime import files


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("HYPERRECON_JAX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / "hyperrecon_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path.home() / ".cache" / "hyperrecon_jax"
    monkeypatch.setenv("HYPERRECON_JAX_CACHE", str(tmp_path / "chosen"))
    assert files.cache_folder() == tmp_path / "chosen"


# Accidents.


def test_a_file_is_on_the_disk_before_it_replaces_the_old_one(tmp_path, monkeypatch):
    """Otherwise a power cut could leave an empty file under the new name."""
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(stat.S_ISDIR(os.fstat(fd).st_mode)) or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda *paths: calls.append("replace") or replace(*paths))
    with files.atomic_write(tmp_path / "a") as partial:
        partial.write_text("new")
    assert calls == [False, "replace", True]
    assert (tmp_path / "a").read_text() == "new"


HOLDER = """
import sys, pathlib
from hyperrecon_jax.runtime import files
with files.lock_folder(pathlib.Path(sys.argv[1])) as holder:
    print(holder == "", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["orderly", "killed"])
def test_a_lock_ends_with_its_process(tmp_path, end):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], **pipes) as holder:
        assert holder.stdout.readline() == "True\n"
        with files.lock_folder(tmp_path) as other:
            assert other == f"process {holder.pid} on {platform.node()}"
        with files.lock_folder(tmp_path, ".other") as other:
            assert other == ""
        if end == "killed":
            holder.kill()
        else:
            holder.stdin.close()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"] * (end == "killed")
    with files.lock_folder(tmp_path) as other, files.lock_folder(tmp_path) as again:
        assert (other, again) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_locks_is_used_without(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks available")))
    with files.lock_folder(tmp_path) as other:
        assert other is None
