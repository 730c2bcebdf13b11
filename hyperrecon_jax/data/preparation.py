"""From a folder of somebody's files to subjects that are ready to be packed: which, in which split, read once each.

Subjects are ordered by a hash of their name and the seed. The first that can be used are for the test, the next for
validation, the next for training. So who is tested does not depend on how many train, and a subject more moves at most one
other across each border. What a subject became is kept in a file of its own until all are packed, so that an interrupted
preparation goes on where it was.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from hyperrecon_jax.data.sources import abide, fastmri, folder
from hyperrecon_jax.data.sources.subject import Settings, Slices
from hyperrecon_jax.physics.sample import Coils
from hyperrecon_jax.runtime import memory
from hyperrecon_jax.runtime.errors import InputError

READERS = {"fastmri": fastmri, "abide": abide, "folder": folder}
SOURCES = tuple(READERS)


class Part(NamedTuple):
    """What a subject became."""

    subject: str
    file: Path | None  # its slices; None: it cannot be used
    known: dict[str, Any]  # "files", of `stamps`; and "slices" and "dropped", or "error"


def find(source: str, root: Path, settings: Settings, *, subjects: tuple[int, int, int]) -> dict[str, list[Path]]:
    """The subjects below a folder, with their files.

    Raises:
        InputError: if there is no such folder, no such files, or not as many subjects as are asked for.
    """
    try:
        found = READERS[source].find(root, settings)
    except OSError as error:
        raise InputError(f"`root` {root} must be a folder that can be read: {error}.") from error
    if len(found) < sum(subjects):
        raise InputError(f"`subjects` must be at most {len(found)} together, as many as {root} holds, got {subjects}.")
    return found


def ordered(names: list[str], seed: int) -> list[str]:
    """Subjects in the order in which they fill the splits: test, validation, training."""
    return sorted(names, key=lambda name: hashlib.sha256(os.fsencode(f"{seed}/{name}")).digest())


def read(
    source: str,
    found: dict[str, list[Path]],
    settings: Settings,
    *,
    subjects: tuple[int, int, int],
    seed: int,
    unfinished: Path,
    workers: int = 1,
) -> tuple[dict[str, list[Part]], list[Part]]:
    """Read as many subjects as are asked for, each into a file of the folder `unfinished`.

    Args:
        source: of `SOURCES`.
        found: from `find`.
        settings: for the source.
        subjects: for training, validation and test.
        seed: of the split.
        unfinished: what is in there from an earlier call, with the same settings, is not read again.
        workers: processes that read.

    Returns:
        The parts of each split, and those that could not be read, whose place others took.

    Raises:
        InputError: if too few subjects can be read, or the disk is too small for them.
    """
    names, total = ordered(list(found), seed), sum(subjects)
    jobs = [(source, name, found[name], settings, unfinished) for name in names]
    parts: dict[int, Part] = {}
    unfinished.mkdir(parents=True, exist_ok=True)
    there = len(list(unfinished.glob("*.npz")))
    with progress(total, "preparing data") as bar:
        while (readable := _readable(parts)) < total and len(parts) < len(jobs):
            wanted = range(len(parts), min(len(jobs), len(parts) + total - readable))
            for i, part in zip(wanted, _parts([jobs[i] for i in wanted], workers), strict=True):
                parts[i] = part
                if part.file is None:
                    bar.write(f"cannot be used: {part.subject}: {part.known['error']}", file=sys.stderr)
                    continue
                if _readable(parts) == 1:
                    _check_room(part.file.stat().st_size, unfinished, total, max(total - there, 0))
                bar.update()
    failed = [part for part in parts.values() if part.file is None]
    good = [part for part in parts.values() if part.file is not None]
    if len(good) < total:
        reasons = "; ".join(f"{part.subject}: {part.known['error']}" for part in failed[:3])
        raise InputError(
            f"`subjects` must be at most the {len(good)} that can be used, got {subjects}; {len(failed)} cannot: {reasons}"
        )
    _, val, test = subjects
    return {"train": good[test + val :], "val": good[test : test + val], "test": good[:test]}, failed


def slices(part: Part) -> Slices:
    """What was read of a subject."""
    assert part.file is not None
    with np.load(part.file) as stored:
        coils = Coils(stored["kspace"], stored["maps"]) if "kspace" in stored else None
        label = stored.get("label")
        return Slices(stored["image"], label, coils, part.known["dropped"])


def stamps(paths: list[Path]) -> dict[str, list[int]]:
    """Size and time of the last change, in seconds, of the files that are there."""
    found = {}
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.stat()
            found[str(path)] = [status.st_size, int(status.st_mtime)]
    return found


def changed(known: Mapping[str, list[int]]) -> str | None:
    """A file that is not any more what it was; those that are gone do not count."""
    now = stamps([Path(path) for path in known])
    return next((path for path, stamp in now.items() if stamp != known[path]), None)


def progress(total: int, what: str) -> Any:
    """A bar of subjects."""
    every = 0.1 if sys.stderr.isatty() else 10  # seconds: in a log file each update is a line
    return tqdm(total=total, desc=what, unit=" subjects", file=sys.stderr, mininterval=every)


def _parts(jobs: list[Any], workers: int) -> Iterator[Part]:
    if workers <= 1 or len(jobs) == 1:
        yield from map(_part, jobs)
        return
    context = get_context("spawn")  # a fork of a process with threads may hang
    # The default of Ctrl-C: to end at once and in silence.
    with ProcessPoolExecutor(workers, context, signal.signal, (signal.SIGINT, signal.SIG_DFL)) as pool:
        try:
            yield from pool.map(_part, jobs)
        except BrokenProcessPool as error:
            raise InputError(
                f"`workers` must be fewer than {workers}: one of them was ended from outside, as happens where memory runs"
                " out; the same call goes on where it was."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _part(job: tuple[str, str, list[Path], Settings, Path]) -> Part:
    """Read one subject, unless that was done before."""
    source, subject, paths, settings, folder = job
    known: dict[str, Any] = {"files": stamps(paths)}
    file = folder / f"{hashlib.sha256(json.dumps([subject, known]).encode()).hexdigest()[:32]}.npz"
    with contextlib.suppress(Exception), file.open("rb") as opened, np.load(opened) as stored:  # else it is made
        return Part(subject, file, json.loads(str(stored["known"])))
    try:
        found = READERS[source].read(paths, settings)
        if not len(found.image):
            raise InputError(f"{paths[0]} must have slices with content, but {found.dropped} were dropped.")
    except (InputError, OSError) as error:
        return Part(subject, None, known | {"error": str(error)})
    known |= {"slices": len(found.image), "dropped": found.dropped}
    arrays: dict[str, Any] = {"image": found.image, "known": json.dumps(known)}
    if found.label is not None:
        arrays["label"] = found.label
    if found.coils is not None:
        arrays |= found.coils._asdict()
    with tempfile.TemporaryDirectory(dir=folder) as own:  # another process may be at the same subject
        np.savez(Path(own, file.name), **arrays)
        os.replace(Path(own, file.name), file)
    return Part(subject, file, known)


def _readable(parts: dict[int, Part]) -> int:
    return sum(part.file is not None for part in parts.values())


def _check_room(size: int, folder: Path, total: int, left: int) -> None:
    """By the first subject: those left to read are here once, and all of them packed once more."""
    need, free = (total + left) * size, shutil.disk_usage(folder).free
    if free < need:
        raise InputError(
            f"`cache` must have room, but on the disk of {folder} {memory.format_bytes(free)} are left and {total} subjects"
            f" like the first need about {memory.format_bytes(need)}; free some or name another folder."
        )
