"""From a folder of somebody's files to subjects that are ready to be packed: which, in which split, read once each.

Who is in which split depends on the subject's name and the seed alone: subjects are ordered by a hash of both, the first
readable ones train, the next validate, the next test. What a subject became is kept in a file of its own until all are
packed, so that an interrupted preparation goes on where it was.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from hyperrecon_jax import files
from hyperrecon_jax.data.subject import Settings, Slices
from hyperrecon_jax.errors import InputError
from hyperrecon_jax.sample import Coils

SOURCES = ("fastmri", "abide", "folder")  # modules beside this one
SPLITS = ("train", "val", "test")


class Part(NamedTuple):
    """What a subject became."""

    subject: str
    file: Path | None  # its slices; None: it cannot be used
    known: dict[str, Any]  # "slices" and "dropped", or "error"


def find(source: str, root: Path, settings: Settings, *, subjects: tuple[int, int, int]) -> dict[str, list[Path]]:
    """The subjects below a folder, with their files.

    Raises:
        InputError: if there is no such folder, no such files, or not as many subjects as are asked for.
    """
    found = import_module(f"hyperrecon_jax.data.{source}").find(root, settings)
    if len(found) < sum(subjects):
        raise InputError(f"`subjects` must be at most {len(found)} together, as many as {root} holds, got {subjects}.")
    return found


def ordered(names: list[str], seed: int) -> list[str]:
    """Subjects in the order in which they fill the splits."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())


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
        unfinished: what is in there from an earlier call is not read again.
        workers: processes that read.

    Returns:
        The parts of each split, and those that could not be read, whose place others took.

    Raises:
        InputError: if too few subjects can be read, or the disk is too small for them.
    """
    names, total = ordered(list(found), seed), sum(subjects)
    jobs = [(source, name, found[name], settings, unfinished) for name in names]
    parts: dict[int, Part] = {}
    every = 0.1 if sys.stderr.isatty() else 10  # seconds: in a log file each update is a line
    unfinished.mkdir(parents=True, exist_ok=True)
    with tqdm(total=total, desc="preparing data", unit=" subjects", file=sys.stderr, mininterval=every) as bar:
        while (readable := _readable(parts)) < total and len(parts) < len(jobs):
            wanted = range(len(parts), min(len(jobs), len(parts) + total - readable))
            for i, part in zip(wanted, _parts([jobs[i] for i in wanted], workers), strict=True):
                parts[i] = part
                if part.file is None:
                    bar.write(f"cannot be used: {part.subject}: {part.known['error']}", file=sys.stderr)
                    continue
                if _readable(parts) == 1:
                    _check_room(part.file.stat().st_size, unfinished, total)
                bar.update()
    failed = [part for part in parts.values() if part.file is None]
    good = [part for part in parts.values() if part.file is not None]
    if len(good) < total:
        reasons = "; ".join(f"{part.subject}: {part.known['error']}" for part in failed[:3])
        raise InputError(
            f"`subjects` must be at most the {len(good)} that can be used, got {subjects}; {len(failed)} cannot: {reasons}"
        )
    ends = np.cumsum((0, *subjects))
    return {split: good[ends[i] : ends[i + 1]] for i, split in enumerate(SPLITS)}, failed


def slices(part: Part) -> Slices:
    """What was read of a subject."""
    assert part.file is not None
    with np.load(part.file) as stored:
        coils = Coils(stored["kspace"], stored["maps"]) if "kspace" in stored else None
        label = stored.get("label")
        return Slices(stored["image"], label, coils, part.known["dropped"])


def fingerprint(root: Path) -> str:
    """Tells whether the files below a folder are the same: their names and sizes."""
    digest, seen = hashlib.sha256(), set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            size = file.stat().st_size if file.exists() else -1
            digest.update(f"{file.relative_to(root)}/{size}\n".encode())
    return digest.hexdigest()


def _parts(jobs: list[Any], workers: int) -> Iterator[Part]:
    if workers <= 1 or len(jobs) == 1:
        yield from map(_part, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:  # a fork of a process with threads may hang
        try:
            yield from pool.map(_part, jobs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _part(job: tuple[str, str, list[Path], Settings, Path]) -> Part:
    """Read one subject, unless that was done before."""
    source, subject, paths, settings, folder = job
    which = [subject, *((str(path), path.stat().st_size) for path in paths if path.exists())]
    file = folder / f"{hashlib.sha256(repr(which).encode()).hexdigest()[:32]}.npz"
    if file.exists():
        with np.load(file) as stored:
            return Part(subject, file, json.loads(str(stored["known"])))
    try:
        found = import_module(f"hyperrecon_jax.data.{source}").read(paths, settings)
        if not len(found.image):
            raise InputError(f"{paths[0]} must have slices with content, but {found.dropped} were dropped.")
    except InputError as error:
        return Part(subject, None, {"error": str(error)})
    known: dict[str, Any] = {"slices": len(found.image), "dropped": found.dropped}
    arrays: dict[str, Any] = {"image": found.image, "known": json.dumps(known)}
    if found.label is not None:
        arrays["label"] = found.label
    if found.coils is not None:
        arrays |= found.coils._asdict()
    with files.whole(file) as partial, partial.open("wb") as opened:
        np.savez(opened, **arrays)
    return Part(subject, file, known)


def _readable(parts: dict[int, Part]) -> int:
    return sum(part.file is not None for part in parts.values())


def _check_room(size: int, folder: Path, total: int) -> None:
    """By the first subject: all of them are here once, and packed once more."""
    need, free = 2 * total * size, shutil.disk_usage(folder).free
    if free < need:
        raise InputError(
            f"`cache` {folder} has {free / 1e9:.1f} GB left, but {total} subjects like the first need about"
            f" {need / 1e9:.1f} GB; free some or name another folder."
        )
