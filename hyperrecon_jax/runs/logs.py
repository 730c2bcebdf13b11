"""The logs of a run while it trains: the progress line, `metrics.jsonl` and event files for TensorBoard."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hyperrecon_jax.runtime import files

BAR = "{percentage:3.0f}% {bar} {n_fmt}/{total_fmt}{postfix}"
REQUIRED = ("step", "seconds")  # the numbers that every row of metrics.jsonl holds
Write = Callable[..., None]


@contextlib.contextmanager
def open_logs(metrics: Path, tensorboard: Path, *, first: int, steps: int, batch: int) -> Iterator[Write]:
    """Open the log files to continue after step `first`. Rows that an interrupted run wrote for later steps are dropped.

    Args:
        metrics: the `.jsonl` file; each line is an object with "step", "seconds" so far, and "train/..." or "val/...".
        tensorboard: folder for event files.
        first: steps done.
        steps: steps in all.
        batch: images in a step, for the rate.

    Yields:
        `write(step, "train" or "val", values, is_stored=True)`. When it returns, the values are in the files; those
        that are not to be stored are only shown.

    Raises:
        OSError: from this function or from `write`, if a file cannot be written.
    """
    seconds_before = max((row["seconds"] for row in drop_after(first, metrics, REQUIRED)), default=0.0)
    with (
        metrics.open("a") as file,
        _open_events(tensorboard, first) as write_events,
        _open_progress(first=first, steps=steps, batch=batch) as show_progress,
    ):
        start = time.monotonic()

        def write(step: int, group: str, values: dict[str, float], *, is_stored: bool = True) -> None:
            show_progress(step, group, values)
            if not is_stored:
                return
            seconds = round(seconds_before + time.monotonic() - start, 3)
            tagged = {f"{group}/{name}": value for name, value in values.items()}
            file.write(json.dumps({"step": step, "seconds": seconds, **tagged}) + "\n")
            file.flush()
            write_events(step, tagged)

        yield write


@contextlib.contextmanager
def _open_progress(*, first: int, steps: int, batch: int) -> Iterator[Callable[[int, str, dict[str, float]], None]]:
    """Progress on stderr: a bar in a terminal, otherwise a line for each call."""
    is_terminal = sys.stderr.isatty()
    start = latest = time.monotonic()
    shown_step = first
    with tqdm(total=steps, initial=first, bar_format=BAR, disable=not is_terminal, dynamic_ncols=True) as bar:

        def show(step: int, group: str, values: dict[str, float]) -> None:
            nonlocal latest, shown_step
            now = time.monotonic()
            seconds, latest = now - latest, now  # since the last call: the time of a validation is not that of steps
            if group != "train":
                text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
                tqdm.write(f"step {step}: validation {text}", file=sys.stderr)
                return
            text = f"loss {values['loss']:.4f}" + (f"  PSNR {values['psnr']:.2f} dB" if "psnr" in values else "")
            if step > first + 1:
                rate = batch * (step - shown_step) / seconds
                text += f"  {rate:.1f} images/s  {duration((steps - step) * batch / rate)} left"
            else:
                text += f"  (compiled in {duration(now - start)})"
            if is_terminal:
                bar.set_postfix_str(text, refresh=False)
            else:
                print(f"step {step}/{steps}  {text}", file=sys.stderr, flush=True)
            bar.update(step - shown_step)
            shown_step = step

        yield show


@contextlib.contextmanager
def _open_events(folder: Path, first: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Open a new event file; yields `write(step, values)`.

    This is not tensorboardX's SummaryWriter: when the disk is full its thread ends, and the run would wait for it for ever.
    """
    from tensorboardX import summary  # here, because it imports PyTorch where that is installed
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    folder.mkdir(exist_ok=True)
    with contextlib.closing(EventsWriter(str(folder / "events"), filename_suffix=f".{first}")) as events:
        # tells TensorBoard to drop what an earlier file holds for this step and later ones
        start = SessionLog(status=SessionLog.START)
        events.write_event(Event(wall_time=time.time(), step=first + 1, session_log=start))

        def write(step: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                events.write_event(Event(wall_time=time.time(), step=step, summary=summary.scalar(name, value)))
            events.flush()

        yield write


def duration(seconds: float) -> str:
    """Seconds as people say them: "45 s", "12 min", "3.5 h", "2.1 days"."""
    for size, unit, digits in ((86400, "days", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def write_lambdas(file: Path, step: int, selected_lams: np.ndarray) -> None:
    """Append the lambdas that DHS selected in the steps up to `step`, one line for each step.

    Args:
        file: a `.jsonl` file.
        step: the last of these steps.
        selected_lams: `(steps, keep, K-1)`.
    """
    first = step - len(selected_lams) + 1
    rows = [{"step": i, "lams": lams.astype(float).round(4).tolist()} for i, lams in enumerate(selected_lams, start=first)]
    with file.open("a") as opened:
        opened.write("".join(json.dumps(row) + "\n" for row in rows))


def read_unlogged(file: Path, step: int, count: int) -> list[dict[str, float]]:
    """The logs of the `count` steps up to `step`, from `{"step": the last one, "rows": its logs and those before}`.

    Logs that the file lacks, or a damaged file, are left out: they are part of one mean.
    """
    try:
        stored = json.loads(file.read_text())
        end = len(stored["rows"]) - (stored["step"] - step)
        return [dict(row) for row in stored["rows"][max(end - count, 0) : max(end, 0)]]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def drop_after(last: int, file: Path, required: Sequence[str]) -> list[dict[str, Any]]:
    """Drop from a `.jsonl` file, if it exists, damaged rows and those of steps after `last`; returns the others."""
    rows = [row for row in read_rows(file, required) if row["step"] <= last]
    if file.exists():
        with files.atomic_write(file) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def read_rows(file: Path, required: Sequence[str] = REQUIRED) -> list[dict[str, Any]]:
    """The lines of a `.jsonl` file that hold the required numbers; an incomplete line is dropped; [] without a file."""
    rows = []
    if file.exists():
        for line in file.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and all(isinstance(row.get(key), (int, float)) for key in required):
                    rows.append(row)
    return rows
