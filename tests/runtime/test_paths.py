"""Paths that a user names, on the disk of this machine."""

import os
from pathlib import Path

import pytest

from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import InputError


def test_a_path_with_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.expand("~/runs/a", argument="--run") == tmp_path / "runs" / "a"
    assert paths.expand("gone/b", argument="--run") == Path("gone/b")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "it is empty"),
        ("~nobody_of_this_name/a", "there is no user of that name"),
        ("gone/" + 100 * "name", "File name too long"),
        ("loop/a", "Too many levels of symbolic links"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a\udcffb", "UTF-8"),
    ],
)
def test_what_no_path_can_be_is_said(path, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(InputError, match=rf"^--out .* cannot be a path: .*{reason}"):
        paths.expand(path, argument="--out")


def test_folders_that_can_be_written(tmp_path):
    for folder in (tmp_path, tmp_path / "new" / "deep"):
        assert paths.explain_unwritable(folder) is None
        paths.check_folder(folder, argument="--out")
        paths.check_file(folder / "a.json", argument="--json")
    assert paths.nearest_existing(tmp_path / "new" / "deep") == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_folders_and_files_that_cannot(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "closed").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and access(path, mode))
    for name, reason in {
        "file": "is not a folder",
        "file/deep": "file is not a folder",
        "link/deep": "leads nowhere",
        "closed": "may not be written",
        "closed/deep/er": "closed may not be written",
    }.items():
        with pytest.raises(InputError, match=rf"^--out .*{name} cannot be written: .*{reason}.*; choose another\.$"):
            paths.check_folder(tmp_path / name, argument="--out", advice="choose another")
        with pytest.raises(InputError, match=reason):
            paths.check_file(tmp_path / name / "rows.json", argument="--json")
    with pytest.raises(InputError, match="it is a folder"):
        paths.check_file(tmp_path, argument="--json")
    with pytest.raises(InputError, match="no file that can be replaced"):
        paths.check_file(Path("/dev/null"), argument="--json")
