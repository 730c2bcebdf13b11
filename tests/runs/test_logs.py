"""The log files: what a run that goes on keeps and drops, and what a full disk does to them."""

import errno
import io
import json

import numpy as np
import pytest
from helper import read_events
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import SessionLog

from hyperrecon_jax.runs import logs

TRAIN = {"loss": 0.5, "psnr": 20.0}
VAL = {"loss": 0.4, "ssim": 0.9}


def write(folder, *, first=0, rows=((1, "train", TRAIN),), steps=4):
    with logs.open_logs(folder / "metrics.jsonl", folder / "events", first=first, steps=steps, batch=2) as put:
        for row in rows:
            put(*row)
    return logs.read_rows(folder / "metrics.jsonl")


def test_a_row_holds_step_seconds_and_values(tmp_path):
    rows = write(tmp_path, rows=[(1, "train", TRAIN), (1, "val", VAL)])
    assert [{**row, "seconds": 0} for row in rows] == [
        {"step": 1, "seconds": 0, "train/loss": 0.5, "train/psnr": 20.0},
        {"step": 1, "seconds": 0, "val/loss": 0.4, "val/ssim": 0.9},
    ]
    assert 0 <= rows[0]["seconds"] <= rows[1]["seconds"] < 10


def test_a_task_without_images_has_no_psnr(tmp_path, capsys):
    write(tmp_path, rows=[(1, "train", {"loss": 0.5}), (2, "train", {"loss": 0.25})])
    assert "loss 0.2500" in (progress := capsys.readouterr().err)
    assert "PSNR" not in progress


def test_a_row_is_on_the_disk_at_once(tmp_path):
    with logs.open_logs(tmp_path / "metrics.jsonl", tmp_path / "events", first=0, steps=4, batch=2) as put:
        put(1, "train", TRAIN)
        assert len(logs.read_rows(tmp_path / "metrics.jsonl")) == 1
        tags = [(event.step, value.tag) for event in read_events(tmp_path / "events") for value in event.summary.value]
        assert tags == [(1, "train/loss"), (1, "train/psnr")]


def test_rows_beyond_the_restored_step_are_dropped_and_seconds_go_on(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": step, "seconds": 100.0 * step, "train/loss": 1.0}) + "\n" for step in (1, 2, 3))
    )
    rows = write(tmp_path, first=2, rows=[(3, "train", TRAIN), (4, "train", TRAIN)])
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["train/loss"] for row in rows] == [1.0, 1.0, 0.5, 0.5]
    assert 200 <= rows[2]["seconds"] <= rows[3]["seconds"] < 210
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_lambdas_are_a_line_a_step_and_go_on_where_the_checkpoint_is(tmp_path):
    file = tmp_path / "dhs.jsonl"
    assert logs.drop_after(0, file, required=("step",)) == []
    assert not file.exists()
    used = np.arange(12, dtype=np.float32).reshape(3, 2, 2) / 16
    logs.write_lambdas(file, 3, used)
    rows = logs.read_rows(file, required=("step",))
    assert [row["step"] for row in rows] == [1, 2, 3]
    np.testing.assert_allclose([row["lams"] for row in rows], used, atol=1e-4)
    assert logs.drop_after(2, file, required=("step",)) == rows[:2]
    logs.write_lambdas(file, 3, used[2:])
    assert logs.read_rows(file, required=("step",)) == rows


@pytest.mark.parametrize("end", [b'{"step": 2, "sec', b'{"step": 2, "seconds": 1.0, "train/loss": 0.1', b"\0\0\0", b"\xff"])
def test_a_last_line_that_was_cut_off_is_survived(tmp_path, end):
    complete_line = json.dumps({"step": 1, "seconds": 1.0, "train/loss": 1.0}) + "\n"
    (tmp_path / "metrics.jsonl").write_bytes(complete_line.encode() + end)
    assert [row["step"] for row in logs.read_rows(tmp_path / "metrics.jsonl")] == [1]
    rows = write(tmp_path, first=1, rows=[(2, "train", TRAIN)])
    assert [row["step"] for row in rows] == [1, 2]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_lines_that_are_no_rows_are_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('3\n{"step": 1}\nnull\n{"step": 1, "seconds": 1.0}\n')
    assert logs.read_rows(tmp_path / "metrics.jsonl") == [{"step": 1, "seconds": 1.0}]


def test_no_file_is_no_rows(tmp_path):
    assert logs.read_rows(tmp_path / "metrics.jsonl") == []


def test_tensorboard_is_told_where_a_run_goes_on(tmp_path):
    """It then hides what an earlier file holds of later steps, and keeps the step that was restored."""
    write(tmp_path, rows=[(2, "train", TRAIN), (3, "train", TRAIN)])
    write(tmp_path, first=2, rows=[(3, "train", TRAIN)])
    assert len(list((tmp_path / "events").iterdir())) == 2
    events = read_events(tmp_path / "events")
    assert [event.step for event in events if event.session_log.status == SessionLog.START] == [1, 3]


def test_progress_where_there_is_no_terminal(tmp_path, capsys):
    write(tmp_path, rows=[(1, "train", TRAIN), (1, "val", VAL), (3, "train", TRAIN)])
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "step 1/4  loss 0.5000  PSNR 20.00 dB  (compiled in 0 s)"
    assert second == "step 1: validation loss 0.4  ssim 0.9"
    assert third.startswith("step 3/4  loss 0.5000  PSNR 20.00 dB  ")
    assert third.endswith(" left")


def test_progress_in_a_terminal(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    write(tmp_path, first=1, rows=[(2, "train", TRAIN), (2, "val", VAL), (4, "train", TRAIN)])
    text = terminal.getvalue()
    assert "4/4" in text
    assert "loss 0.5000  PSNR 20.00 dB" in text
    assert "step 2: validation loss 0.4  ssim 0.9\n" in text


def test_a_full_disk_is_an_error_and_not_a_wait(tmp_path, monkeypatch):
    """tensorboardX's own writer would lose its thread to the error and let the run wait for it."""

    original = EventsWriter.write_event

    def write_event(self, event):
        if event.step > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, event)

    monkeypatch.setattr(EventsWriter, "write_event", write_event)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, rows=[(step, "train", TRAIN) for step in range(1, 40)], steps=40)
    assert [row["step"] for row in logs.read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (45, "45 s"),
        (119, "119 s"),
        (120, "2 min"),
        (720, "12 min"),
        (7199, "120 min"),
        (7200, "2.0 h"),
        (12_600, "3.5 h"),
        (172_800, "2.0 days"),
        (181_440, "2.1 days"),
    ],
)
def test_durations_as_people_say_them(seconds, text):
    assert logs.duration(seconds) == text
