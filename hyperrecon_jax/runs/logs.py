"""What a run says while it works: the progress line, `metrics.jsonl` and TensorBoard event files (without TensorFlow)."""

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
NUMBERED = ("step", "seconds")  # what every row of metrics.jsonl holds
Write = Callable[[int, str, dict[str, float]], None]


@contextlib.contextmanager
def open_logs(metrics: Path, tensorboard: Path, *, first: int, steps: int, batch: int) -> Iterator[Write]:
    """Log files that go on at step `first`: what a run that was cut off wrote beyond it is dropped.

    Args:
        metrics: the `.jsonl` file, one object a line with "step", "seconds" so far, and "train/..." or "val/...".
        tensorboard: folder for event files.
        first: steps done.
        steps: steps in all.
        batch: images a step, for the rate.

    Yields:
        `write(step, "train" or "val", values)`. What it wrote is on the disk when it returns.

    Raises:
        OSError: there or here, if the files cannot be written.
    """
    before = max((row["seconds"] for row in drop_after(first, metrics, NUMBERED)), default=0.0)
    start = latest = time.monotonic()
    shown_step = first
    terminal = sys.stderr.isatty()
    with (
        metrics.open("a") as file,
        _events(tensorboard, first) as write_events,
        tqdm(total=steps, initial=first, bar_format=BAR, disable=not terminal, dynamic_ncols=True) as bar,
    ):

        def write(step: int, group: str, values: dict[str, float]) -> None:
            nonlocal latest, shown_step
            now, since = time.monotonic(), latest
            latest, seconds = now, now - start
            row = {"step": step, "seconds": round(before + seconds, 3), **{f"{group}/{k}": v for k, v in values.items()}}
            file.write(json.dumps(row) + "\n")
            file.flush()
            write_events(step, {f"{group}/{name}": value for name, value in values.items()})
            if group != "train":
                text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
                tqdm.write(f"step {step}: validation {text}", file=sys.stderr)
                return
            shown = f"loss {values['loss']:.4f}" + (f"  PSNR {values['psnr']:.2f} dB" if "psnr" in values else "")
            if step > first + 1:
                rate = batch * (step - shown_step) / (now - since)
                shown += f"  {rate:.1f} images/s  {duration((steps - step) * batch / rate)} left"
            else:
                shown += f"  (compiled in {duration(seconds)})"
            if terminal:
                bar.set_postfix_str(shown, refresh=False)
            else:
                print(f"step {step}/{steps}  {shown}", file=sys.stderr, flush=True)
            bar.update(step - shown_step)
            shown_step = step

        yield write


@contextlib.contextmanager
def _events(folder: Path, first: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A new event file. Not a SummaryWriter: its thread dies of a full disk, and the run would wait for it for ever."""
    from tensorboardX import summary  # here, because it imports PyTorch where that is installed
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    folder.mkdir(exist_ok=True)
    with contextlib.closing(EventsWriter(str(folder / "events"), filename_suffix=f".{first}")) as events:
        # TensorBoard drops what an earlier file holds of this step and later ones
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


def write_lambdas(file: Path, step: int, used: np.ndarray) -> None:
    """Append the lambdas that counted in the steps up to `step`, `(steps, keep, K-1)`, a line for each step."""
    rows = [
        {"step": i, "lams": lams.astype(float).round(4).tolist()} for i, lams in enumerate(used, start=step - len(used) + 1)
    ]
    with file.open("a") as opened:
        opened.write("".join(json.dumps(row) + "\n" for row in rows))


def drop_after(first: int, file: Path, needs: Sequence[str]) -> list[dict[str, Any]]:
    """Drop from a `.jsonl` file, if there is one, rows of steps beyond `first` and damaged ones; returns what stays."""
    kept = [row for row in read_rows(file, needs) if row["step"] <= first]
    if file.exists():
        with files.atomic_write(file) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return kept


def read_rows(file: Path, needs: Sequence[str] = NUMBERED) -> list[dict[str, Any]]:
    """The lines of a `.jsonl` file that hold the numbers needed; a line that was cut off is dropped."""
    rows = []
    if file.exists():
        for line in file.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and all(isinstance(row.get(key), (int, float)) for key in needs):
                    rows.append(row)
    return rows
