"""Prepare a data set once and keep it in the cache: synthetic images, or the slices of your files.

Each function returns the folder of the data set in the cache, for `cache.read`. If the folder exists, nothing is prepared.
"""

import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hyperrecon_jax.data import cache as data_cache
from hyperrecon_jax.data import subjects as file_subjects
from hyperrecon_jax.data.dataset import Dataset
from hyperrecon_jax.data.sources.base import Settings
from hyperrecon_jax.runtime import files, memory, paths
from hyperrecon_jax.runtime.errors import InputError

UNFINISHED = "unfinished"  # folder in the cache
KEEP_UNFINISHED = 30 * 86400  # seconds


def mni(
    *,
    size: int,
    subjects: tuple[int, int, int] = (100, 25, 50),
    slices: int,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    disk: bool | None = None,
) -> Dataset:
    """Synthetic T1-weighted brains with tissue labels. The first call prepares them, later calls read them from the cache.

    Args:
        size: as for `mni_folder`.
        subjects: as for `mni_folder`.
        slices: as for `mni_folder`.
        seed: as for `mni_folder`.
        cache: as for `mni_folder`.
        disk: as in `cache.read`.
    """
    folder = mni_folder(size=size, subjects=subjects, slices=slices, seed=seed, cache=cache)
    return data_cache.read(folder, disk=disk)


def mni_folder(
    *,
    size: int,
    subjects: tuple[int, int, int],
    slices: int,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
) -> Path:
    """The folder of a synthetic population (`population.py`). Prepares the population if the cache does not have it.

    All subjects have the same anatomy, the average of 152 people, under random deformations and contrasts. So a test on
    them is a test on unseen deformations and contrasts of that anatomy, not on new people.

    Args:
        size: pixels along both sides, a multiple of 8; the field of view is 224 mm at every size.
        subjects: numbers of subjects for training, validation and test. No subject, and no seed, is in two splits.
        slices: axial slices of each subject, evenly spaced over the brain. Images are in order of subject, then slice.
        seed: seed of the whole population.
        cache: the folder for prepared data; by default that of `files.cache_folder`.

    Raises:
        InputError: if an argument is out of range or the cache cannot be written.
    """
    return synthetic_folder("mni", size=size, subjects=subjects, slices=slices, seed=seed, cache=cache)


def synthetic_folder(
    source: str,
    *,
    size: int,
    subjects: tuple[int, int, int],
    slices: int,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
) -> Path:
    """The folder of synthetic images. Prepares them if the cache does not have them.

    Args:
        source: "mni", as `mni_folder`; or "broad", images as varied as people's scans (`broad.py`). These are for training:
            they teach to invert the measurement, not one anatomy. They have no labels.
        size: pixels along both sides, a multiple of 8; the field of view of "broad" differs from image to image.
        subjects: numbers of subjects for training, validation and test. No subject, and no seed, is in two splits.
        slices: images of each subject; of "broad" each has its own plane, contrast and brightness, or no anatomy.
        seed: seed of all images.
        cache: the folder for prepared data; by default that of `files.cache_folder`.

    Raises:
        InputError: if an argument is out of range or the cache cannot be written.
    """
    check_settings(size=size, subjects=subjects, slices=slices, seed=seed)
    from hyperrecon_jax.data import builder  # here, because TFDS is slow to import

    train, val, test = (int(n) for n in subjects)
    config = builder.Config.create(size=int(size), subjects=(train, val, test), slices=int(slices), seed=int(seed))
    source_builder = builder.SYNTHETIC_BUILDERS[source]
    root = files.cache_folder(cache)
    folder = root / source_builder.name / config.name / str(source_builder.VERSION)
    if not folder.exists():
        needed_bytes = sum(subjects) * slices * size**2 * 3  # two of the image and one of the label for each pixel
        with write_into_cache(root, folder, needed_bytes, name=f"{source}-{config.name}"):
            tfds_builder = source_builder(config=config, data_dir=root, file_format="array_record")
            tfds_builder.download_and_prepare()
    return folder


def files_folder(
    source: str,
    *,
    root: str | os.PathLike[str],
    settings: Settings,
    subjects: tuple[int, int, int],
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    workers: int = 1,
) -> Path:
    """The folder of the slices of the subjects in `root`, split by subject (Sec. V-A). Prepares what the cache lacks.

    Afterwards the files may be deleted. Those that still exist must not have changed. Files that were added later are
    ignored.

    Args:
        source: one of `subjects.SOURCES`.
        root: the folder with the files.
        settings: how the source makes slices of them.
        subjects: numbers of subjects for training, validation and test; no subject is in two.
        seed: seed of the split.
        cache: the folder for prepared data; by default that of `files.cache_folder`.
        workers: processes that prepare.

    Raises:
        InputError: if an argument is out of range, there are no such files or too few that can be used, one has changed
            since it was prepared, or the cache cannot be written.
    """
    if source not in file_subjects.SOURCES:
        raise InputError(f"`source` must be one of {', '.join(file_subjects.SOURCES)}, got {source!r}.")
    check_settings(size=settings.size, subjects=subjects, slices=settings.slices, seed=seed)
    from hyperrecon_jax.data import builder  # here, because TFDS is slow to import

    cache_root, raw = files.cache_folder(cache), Path(os.path.abspath(paths.expand(root, argument="`root`")))
    _check_outside(cache_root, raw)
    train, val, test = subjects
    name = f"size{settings.size}-subjects{'x'.join(map(str, subjects))}-{_digest(str(raw), settings, seed)}"
    folder = cache_root / source / name / builder.FILES_RECIPE
    if folder.exists():
        _check_unchanged(folder, raw)
        return folder
    unfinished = f"{source}-{_digest(str(raw), settings, builder.FILES_RECIPE)}"
    config = builder.FilesConfig(
        name=name,
        settings=settings,
        subjects=(train, val, test),
        seed=seed,
        root=raw,
        # The name does not depend on the splits: after a call that failed, asking for too many subjects, another split
        # need not read them again.
        unfinished=cache_root / UNFINISHED / unfinished,
        workers=workers,
    )
    with write_into_cache(cache_root, folder, 0, name=unfinished):
        tfds_builder = builder.FILE_BUILDERS[source](config=config, data_dir=cache_root, file_format="array_record")
        tfds_builder.download_and_prepare(download_dir=config.unfinished)
    return folder


def check_settings(*, size: int, subjects: tuple[int, int, int], slices: int, seed: int) -> None:
    """Check the settings of a data set.

    Raises:
        InputError: if one is out of range.
    """
    if not _is_whole_number(size) or size % 8:
        raise InputError(f"`size` must be a positive multiple of 8 (the U-Net halves it three times), got {size!r}.")
    if not _is_whole_number(slices):
        raise InputError(f"`slices` must be a positive whole number, got {slices!r}.")
    if not isinstance(subjects, (tuple, list)) or len(subjects) != 3 or not all(map(_is_whole_number, subjects)):
        raise InputError(f"`subjects` must be three positive whole numbers (train, val, test), got {subjects!r}.")
    if not _is_whole_number(seed, minimum=0):
        raise InputError(f"`seed` must be a whole number of at least 0, got {seed!r}.")


@contextlib.contextmanager
def write_into_cache(cache: Path, folder: Path, needed_bytes: int, *, name: str) -> Iterator[None]:
    """Inside, a builder may write `folder` into the cache. Turns a full or closed disk into an `InputError`.

    If another process prepares the same data, it waits until that ends.

    Args:
        cache: the folder for prepared data; created if it does not exist.
        folder: the new data set in it.
        needed_bytes: the space that the data set needs at most; 0 if that is not known.
        name: of the preparation. Those of the same name share a folder of what is unfinished, so they wait for one another.
    """
    if reason := paths.explain_unwritable(cache):
        raise InputError(
            f"`cache` {cache} must be a folder that can be written to, but {reason}; name another as `cache` or in"
            " $HYPERRECON_JAX_CACHE."
        )
    try:
        free = shutil.disk_usage(paths.nearest_existing(cache)).free
        if free < needed_bytes:
            raise InputError(
                f"`cache` {cache} must have room, but {memory.format_bytes(free)} are left and the data need up to"
                f" {memory.format_bytes(needed_bytes)}; free some, ask for fewer images, or name another folder as `cache`"
                " or in $HYPERRECON_JAX_CACHE."
            )
        with _wait_for_lock(cache / UNFINISHED, f".{name}.lock") as has_lock:
            if has_lock:
                _remove_leftovers(folder, cache / UNFINISHED / name)
            data_cache.forget_open_folders()
            with data_cache.silence_tfds():
                yield
    except (OSError, RuntimeError) as error:
        # array_record reports a full disk as a RuntimeError with these words
        if isinstance(error, RuntimeError) and "; writing " not in str(error):
            raise
        if folder.exists():
            return  # another process prepared the same data at the same time, and was first to rename its folder
        raise InputError(
            f"`cache` {cache} must be a folder that can be written to ({error}); name another as `cache` or in"
            " $HYPERRECON_JAX_CACHE."
        ) from error


@contextlib.contextmanager
def _wait_for_lock(folder: Path, name: str) -> Iterator[bool]:
    """Wait until this process holds a lock; False where the disk has none."""
    folder.mkdir(parents=True, exist_ok=True)
    is_waiting = False
    while True:
        with files.lock_folder(folder, name) as holder:
            if not holder:
                yield holder is not None
                return
        if not is_waiting:
            print(f"Another command prepares the same data, {holder}: waiting for it.", file=sys.stderr, flush=True)
        is_waiting = True
        time.sleep(1)


def _remove_leftovers(folder: Path, unfinished: Path) -> None:
    """Remove what killed preparations left: of this data set what is half written, of others what nobody has continued."""
    now = time.time()
    for path in unfinished.parent.iterdir():
        with contextlib.suppress(OSError):
            if path != unfinished and path.is_dir() and now - path.stat().st_mtime > KEEP_UNFINISHED:
                shutil.rmtree(path, ignore_errors=True)
    half_written = [path for path in unfinished.glob("*") if path.is_dir()]
    for path in (*folder.parent.glob("incomplete.*"), *half_written):
        shutil.rmtree(path, ignore_errors=True)


def _check_outside(cache: Path, root: Path) -> None:
    """Raises `InputError` if the cache is inside `root`, unless in a hidden folder, which sources ignore."""
    if cache.is_relative_to(root) and not any(part.startswith(".") for part in cache.relative_to(root).parts):
        raise InputError(f"`cache` {cache} must lie outside of `root` {root}, or it would be taken for a part of it.")


def _check_unchanged(folder: Path, root: Path) -> None:
    """Raises `InputError` if one of the files that were prepared has changed since."""
    if file := file_subjects.changed_file(data_cache.metadata(folder).get("files", {})):
        raise InputError(
            f"`root` {root} must hold the files that were prepared, but {file} has changed since; delete {folder} to have"
            " them prepared again."
        )


def _digest(*values: object) -> str:
    """A short name for some values. It names folders in the cache: another `repr` of `Settings` would lose them."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:8]


def _is_whole_number(value: Any, minimum: int = 1) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= minimum
