"""The folder of a run: whether a run can use it, and the messages for damaged files and full disks."""

import errno
import json
import shutil
from collections import namedtuple

import pytest

from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runtime.errors import InputError

SETTINGS = {"train": {"steps": 5}}
TERMS = ("data_consistency", "weight_l1", "total_variation")


def differences(old, new):
    return [key for key in new if old[key] != new[key]]


def test_an_empty_or_missing_folder_is_new(tmp_path):
    """So is the folder of a run that was killed while it wrote its settings."""
    assert not run_folder.can_resume(tmp_path, SETTINGS, differences)
    assert not run_folder.can_resume(tmp_path / "a" / "b", SETTINGS, differences)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "config.json.partial").write_text("{")
    assert not run_folder.can_resume(tmp_path, SETTINGS, differences)


def test_the_same_experiment_can_be_resumed_and_another_is_refused(tmp_path):
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


def test_folders_with_other_content_are_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match=r"is not empty and holds no config\.json: choose another --workdir"):
        run_folder.can_resume(tmp_path, SETTINGS, differences)
    for folder in (tmp_path / "thesis.txt", tmp_path / "thesis.txt" / "run"):
        with pytest.raises(InputError, match=r"cannot be used: .*thesis\.txt is not a folder"):
            run_folder.can_resume(folder, SETTINGS, differences)


def test_damaged_scales_are_named(tmp_path):
    assert run_folder.read_magnitudes(tmp_path, TERMS) is None
    for content in ('{"magnitudes": ', "{}", '{"magnitudes": {"weight_l1": 1}}', '{"magnitudes": 3}'):
        (tmp_path / run_folder.SCALES).write_text(content)
        with pytest.raises(InputError, match=r"scales\.json is damaged: delete"):
            run_folder.read_magnitudes(tmp_path, TERMS)
    for bad in (0.0, -1.0, "many"):
        run_folder.write_json(tmp_path / run_folder.SCALES, {"magnitudes": dict.fromkeys(TERMS, bad)})
        with pytest.raises(InputError, match=r"scales\.json is damaged: delete"):
            run_folder.read_magnitudes(tmp_path, TERMS)


def fill_disk(monkeypatch, free):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40 - free, free))


def test_too_little_room_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    fill_disk(monkeypatch, 3 * 2**20)
    with pytest.raises(InputError, match=r"has 3 MiB free and 20 MiB are needed; what was saved before is kept"):
        run_folder.create_workdir(tmp_path / "a" / "run", SETTINGS, size=4 * 2**20)
    assert list(tmp_path.iterdir()) == []


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


def test_a_json_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    run_folder.write_json(tmp_path / "a.json", {"a": 1})

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        run_folder.write_json(tmp_path / "a.json", {"a": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
