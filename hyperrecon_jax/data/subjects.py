"""From a folder of your files to the subjects of each split, whose slices are read once and kept in files.

Subjects are ordered by a hash of their name and the seed. The first usable ones are for the test, the next for
validation, the next for training. So the number of training subjects does not change who is tested, and adding one
subject to the folder moves at most one subject between two neighbouring splits.

The slices of each subject are kept in a file of their own until all subjects are packed. An interrupted preparation goes on
from these files.
"""

import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from hyperrecon_jax.data.sources import abide, fastmri, folder
from hyperrecon_jax.data.sources.base import Settings, Slices
from hyperrecon_jax.physics.sample import Coils
from hyperrecon_jax.runtime import memory
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.paths import printable
from hyperrecon_jax.runtime.workers import end_with_parent

READERS = {"fastmri": fastmri, "abide": abide, "folder": folder}  # a module for each source, see `sources/base.py`
SOURCES = tuple(READERS)
SUMMARY_KEY = "known"  # in the files of an unfinished preparation; the name stays, so that these files stay readable


class SubjectFile(NamedTuple):
    """The result of reading one subject."""

    subject: str
    file: Path | None  # holds the slices; None if the subject cannot be used
    summary: dict[str, Any]  # "files": from `file_stamps`; then "slices", "dropped", "notes" and "skipped", or "error"


class _Job(NamedTuple):
    """Read one subject: the arguments of `_read_subject`, which may run in another process."""

    source: str
    subject: str
    paths: list[Path]
    settings: Settings
    folder: Path


def find_subjects(source: str, root: Path, settings: Settings, *, counts: tuple[int, int, int]) -> dict[str, list[Path]]:
    """The subjects below a folder, with their files.

    Args:
        source: one of `SOURCES`.
        root: the folder.
        settings: settings of the source.
        counts: numbers of subjects that training, validation and test need.

    Raises:
        InputError: if there is no such folder, no such files, or fewer subjects than `counts` needs.
    """
    try:
        files = READERS[source].find(root, settings)
    except OSError as error:
        raise InputError(f"`root` {root} must be a folder that can be read: {error}.") from error
    if len(files) < sum(counts):
        names = ", ".join([*list(files)[:3], *(["..."] if len(files) > 3 else [])])
        raise InputError(
            f"`subjects` must be at most {len(files)} together, as many as {root} holds ({names}), got {counts}."
        )
    return files


def count_excluded(source: str, root: Path, settings: Settings) -> int:
    """How many image files the patterns of the settings leave out."""
    return folder.count_excluded(root, settings) if source == "folder" else 0


def order_subjects(names: list[str], seed: int) -> list[str]:
    """Subjects in the order in which they fill the splits: test, validation, training."""
    return sorted(names, key=lambda name: hashlib.sha256(os.fsencode(f"{seed}/{name}")).digest())


def read_subjects(
    source: str,
    files: dict[str, list[Path]],
    settings: Settings,
    *,
    counts: tuple[int, int, int],
    seed: int,
    unfinished: Path,
    workers: int = 1,
) -> tuple[dict[str, list[SubjectFile]], list[SubjectFile]]:
    """Read as many usable subjects as the splits need, each into a file of the folder `unfinished`.

    Args:
        source: one of `SOURCES`.
        files: the files of each subject, from `find_subjects`.
        settings: settings of the source.
        counts: numbers of subjects for training, validation and test.
        seed: seed of the split.
        unfinished: a folder. Subjects that an earlier call with the same settings wrote there are not read again.
        workers: processes that read.

    Returns:
        The subjects of each split, and the subjects that cannot be used, which others replace.

    Raises:
        InputError: if too few subjects can be read, or the disk is too small for them.
    """
    unfinished.mkdir(parents=True, exist_ok=True)
    jobs = [_Job(source, name, files[name], settings, unfinished) for name in order_subjects(list(files), seed)]
    results = _read_until(jobs, sum(counts), workers)
    failed = [result for result in results if result.file is None]
    usable = [result for result in results if result.file is not None]
    if len(usable) < sum(counts):
        reasons = "; ".join(f"{result.subject}: {result.summary['error']}" for result in failed[:3])
        raise InputError(
            f"`subjects` must be at most the {len(usable)} that can be used, got {counts}; {len(failed)} cannot: {reasons}"
        )
    _, val, test = counts
    return {"train": usable[test + val :], "val": usable[test : test + val], "test": usable[:test]}, failed


def load_slices(result: SubjectFile) -> Slices:
    """The slices of a subject, from its file."""
    assert result.file is not None
    with np.load(result.file) as arrays:
        coils = Coils(arrays["kspace"], arrays["maps"]) if "kspace" in arrays else None
        summary = result.summary
        notes, skipped = tuple(summary.get("notes", ())), summary.get("skipped", {})
        return Slices(arrays["image"], arrays.get("label"), coils, summary["dropped"], notes, skipped)


def file_stamps(paths: list[Path]) -> dict[str, list[int]]:
    """Size in bytes and time of the last change in seconds of each file that exists."""
    stamps = {}
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.stat()
            stamps[str(path)] = [status.st_size, int(status.st_mtime)]
    return stamps


def changed_file(stamps: Mapping[str, list[int]]) -> str | None:
    """The first file whose size or time differs from `stamps`; None if no file does. Deleted files do not count."""
    current = file_stamps([Path(path) for path in stamps])
    return next((path for path, stamp in current.items() if stamp != stamps[path]), None)


def progress_bar(total: int, description: str) -> Any:
    """A bar that counts subjects."""
    interval = 0.1 if sys.stderr.isatty() else 10  # seconds: in a log file each update is a line
    return tqdm(total=total, desc=description, unit=" subjects", file=sys.stderr, mininterval=interval)


def _read_until(jobs: list[_Job], total: int, workers: int) -> list[SubjectFile]:
    """Do the jobs in order until `total` subjects are usable, or no job is left."""
    results: list[SubjectFile] = []
    usable = 0
    read_before = len(list(jobs[0].folder.glob("*.npz"))) if jobs else 0
    with progress_bar(total, "preparing data") as bar:
        while usable < total and len(results) < len(jobs):
            batch = jobs[len(results) : len(results) + total - usable]
            for result in _read_batch(batch, workers):
                results.append(result)
                if result.file is None:
                    bar.write(printable(f"cannot be used: {result.subject}: {result.summary['error']}"), file=sys.stderr)
                    continue
                usable += 1
                if usable == 1:
                    _check_room(result.file.stat().st_size, result.file.parent, total, max(total - read_before, 0))
                bar.update()
    return results


def _read_batch(jobs: list[_Job], workers: int) -> Iterator[SubjectFile]:
    """The results of some jobs, in order, from as many processes."""
    if workers <= 1 or len(jobs) == 1:
        yield from map(_read_subject, jobs)
        return
    context = get_context("spawn")  # a fork of a process with threads may hang
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, _start_worker) as pool:
        try:
            # not `pool.map`: it cancels what is left, and Python 3.11 prints a traceback if workers then end
            futures = [pool.submit(_read_subject, job) for job in jobs][::-1]
            while futures:
                yield futures.pop().result()
        except BrokenProcessPool as error:
            raise InputError(
                f"`workers` must be fewer than {workers}: one of them was ended from outside, as happens where memory runs"
                " out; the same call goes on where it was."
            ) from error
        except BaseException:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()  # otherwise it would first finish its subject
            raise


def _start_worker() -> None:
    """Called at the start of a worker: what it has to say is in its results, so it writes nothing."""
    end_with_parent()
    logging.disable()
    warnings.simplefilter("ignore")


def _read_subject(job: _Job) -> SubjectFile:
    """Read one subject into its file, unless the file exists already."""
    source, subject, paths, settings, folder = job
    # The name depends on the files' sizes and times: a subject whose files change is read again.
    summary: dict[str, Any] = {"files": file_stamps(paths)}
    file = folder / f"{hashlib.sha256(json.dumps([subject, summary]).encode()).hexdigest()[:32]}.npz"
    # A file that is missing or damaged is written again below.
    with contextlib.suppress(Exception), file.open("rb") as stream, np.load(stream) as arrays:
        return SubjectFile(subject, file, json.loads(str(arrays[SUMMARY_KEY])))
    try:
        slices = READERS[source].read(paths, settings)
        if not len(slices.image):
            raise InputError(f"{paths[0]} must have slices with content, but {slices.dropped} were dropped.")
    except (InputError, OSError) as error:
        return SubjectFile(subject, None, summary | {"error": str(error)})
    summary |= {"slices": len(slices.image), "dropped": slices.dropped, "notes": list(slices.notes)}
    summary["skipped"] = dict(slices.skipped)
    _write_slices(file, slices, summary)
    return SubjectFile(subject, file, summary)


def _write_slices(file: Path, slices: Slices, summary: dict[str, Any]) -> None:
    arrays: dict[str, Any] = {"image": slices.image, SUMMARY_KEY: json.dumps(summary)}
    if slices.label is not None:
        arrays["label"] = slices.label
    if slices.coils is not None:
        arrays |= slices.coils._asdict()
    # Another process may write the same file: each writes into a folder of its own and renames at the end.
    with tempfile.TemporaryDirectory(dir=file.parent) as temporary:
        np.savez(Path(temporary, file.name), **arrays)
        os.replace(Path(temporary, file.name), file)


def _check_room(size: int, folder: Path, total: int, unread: int) -> None:
    """Raises `InputError` if the disk is too small, judged by the first subject.

    Every unread subject takes `size` bytes in `folder`, and each of the `total` subjects takes as much again once it is
    packed.
    """
    needed, free = (total + unread) * size, shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"`cache` must have room, but on the disk of {folder} {memory.format_bytes(free)} are left and {total} subjects"
            f" like the first need about {memory.format_bytes(needed)}; free some or name another folder."
        )
