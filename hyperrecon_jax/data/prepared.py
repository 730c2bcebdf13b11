"""Data sets that are prepared once and cached on disk by TensorFlow Datasets (`builder.py`), and how they are read.

A folder of the cache is named after every setting and after the version of the recipe: what is found there is what
would be made again. TFDS writes into a folder of another name and renames it once all is there, so that an interrupted
preparation leaves nothing that looks complete.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from absl import logging

from hyperrecon_jax.data.dataset import Dataset, Samples, Split, loaded, on_disk
from hyperrecon_jax.physics.sample import Coils, Sample
from hyperrecon_jax.runtime import distributed, files, memory
from hyperrecon_jax.runtime.errors import InputError


def mni(
    *,
    size: int,
    subjects: tuple[int, int, int] = (100, 25, 50),
    slices: int,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    disk: bool | None = None,
) -> Dataset:
    """Synthetic T1-weighted brains with tissue labels: prepared on the first call, read from the cache afterwards.

    Args: those of `mni_folder`, and `disk`, see `read`.
    """
    return read(mni_folder(size=size, subjects=subjects, slices=slices, seed=seed, cache=cache), disk=disk)


def mni_folder(
    *,
    size: int,
    subjects: tuple[int, int, int],
    slices: int,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
) -> Path:
    """The folder of a synthetic population, for `read`; what is not there yet is prepared.

    They are one anatomy, the average of 152 people, under random deformation and contrast. A test on them is a test on
    unseen deformation and contrast of that anatomy, not on new people (see `population.py`).

    Args:
        size: pixels along both sides, a multiple of 8; the field of view is 224 mm at every size.
        subjects: how many subjects for training, validation and test. No subject, and no seed, is in two splits.
        slices: axial slices a subject, spread evenly over the brain. Images are in order of subject, then slice.
        seed: of the whole population.
        cache: the folder for them; by default that of `files.cache_folder`.

    Raises:
        InputError: if an argument is out of range or the cache cannot be written.
    """
    check(size=size, subjects=subjects, slices=slices, seed=seed)
    from hyperrecon_jax.data import builder  # here, because TFDS is slow to import

    train, val, test = (int(n) for n in subjects)
    config = builder.Config.of(size=int(size), subjects=(train, val, test), slices=int(slices), seed=int(seed))
    home = files.cache_folder(cache)
    folder = home / builder.MniPopulation.name / config.name / builder.RECIPE
    if not folder.exists():
        need = sum(subjects) * slices * size**2 * 3  # bytes: two of image and one of label a pixel
        with preparing(home, folder, need):
            made = builder.MniPopulation(config=config, data_dir=home, file_format="array_record")
            made.download_and_prepare()
    return folder


def check(*, size: int, subjects: tuple[int, int, int], slices: int, seed: int) -> None:
    """Raises `InputError` if one is out of range."""
    if not _whole(size) or size % 8:
        raise InputError(f"`size` must be a positive multiple of 8 (the U-Net halves it three times), got {size!r}.")
    if not _whole(slices):
        raise InputError(f"`slices` must be a positive whole number, got {slices!r}.")
    if not isinstance(subjects, (tuple, list)) or len(subjects) != 3 or not all(map(_whole, subjects)):
        raise InputError(f"`subjects` must be three positive whole numbers (train, val, test), got {subjects!r}.")
    if not _whole(seed, at_least=0):
        raise InputError(f"`seed` must be a whole number of at least 0, got {seed!r}.")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ours is the one line of progress: without the bars of TFDS, its announcements on stdout and its warnings."""
    import tensorflow_datasets as tfds

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
        tfds.enable_progress_bar()


@contextlib.contextmanager
def preparing(cache: Path, folder: Path, need: int) -> Iterator[None]:
    """Around the preparation of `folder` in the cache, which needs so many bytes; what fails there becomes a sentence."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
        if free < need:
            raise InputError(
                f"`cache` {cache} must have room, but {memory.shown(free)} are left and the data need up to"
                f" {memory.shown(need)}; free some or name another folder as `cache` or in $HYPERRECON_JAX_CACHE."
            )
        _opened.cache_clear()  # of a folder of that name that was deleted
        _source.cache_clear()
        with quiet():
            yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "; writing " not in str(error):  # so array_record tells of a full disk
            raise
        if folder.exists():
            return  # another process prepared the same data at the same time, and was first to rename its folder
        raise InputError(
            f"`cache` {cache} must be a folder that can be written to ({error}); name another as `cache` or in"
            " $HYPERRECON_JAX_CACHE."
        ) from error


def read(folder: Path, *, disk: bool | None = None, splits: Sequence[str] = Dataset._fields) -> Dataset:
    """A prepared data set.

    Args:
        folder: of the cache.
        disk: leave the samples on disk, or read all into memory; none given: into memory if half of it has room.
        splits: those that are needed, of "train", "val", "test"; the others stay on disk.

    Raises:
        InputError: if what is there is damaged.
    """
    with _sound(folder):
        slices = metadata(folder)["slices"]
        sets = {name: _samples(folder, name, sum(slices[name])) for name in Dataset._fields}
        if disk is None:
            size = sum(samples.nbytes for samples in sets.values())
            disk = distributed.broadcast_from_primary(lambda: size > psutil.virtual_memory().available / 2)
        if not disk:
            sets |= {name: loaded(sets[name]) for name in splits}
    ends = np.cumsum([0, *(len(slices[name]) for name in sets)])
    return Dataset(
        *(
            Split(samples, np.repeat(np.arange(start, start + len(slices[name]), dtype=np.int32), slices[name]))
            for (name, samples), start in zip(sets.items(), ends, strict=False)
        )
    )


def metadata(folder: Path) -> dict[str, Any]:
    """What was written down of a prepared data set; raises `InputError` if it is damaged."""
    with _sound(folder):
        return dict(_opened(str(folder)).info.metadata)


@contextlib.contextmanager
def _sound(folder: Path) -> Iterator[None]:
    """Around reading: damaged JSON, protocol buffers and records fail in as many ways."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"The cached data in {folder} cannot be read ({type(error).__name__}: {error}); delete that folder to have"
            " it prepared again."
        ) from error


def _record(folder: str, split: str, index: int) -> Sample:
    """Reads one sample; with its first arguments set it can be sent to another process."""
    stored = _source(folder, split)[index]
    image = np.divide(stored["image"], np.float32(65535))
    coils = None
    if "kspace" in stored:
        coils = Coils(*(stored[name].view(np.complex64)[..., 0] for name in Coils._fields))
    return Sample(image, stored.get("label"), coils)


def _samples(folder: Path, split: str, count: int) -> Samples:
    there = len(_source(str(folder), split))
    if there != count:
        raise ValueError(f"{there} images in {split} instead of {count}")
    made_of = hashlib.sha256(json.dumps(metadata(folder), sort_keys=True).encode()).hexdigest()[:16]
    name = f"{split} of {'/'.join(folder.parts[-3:])}, {made_of}"
    return on_disk(count, functools.partial(_record, str(folder), split), name)


@functools.lru_cache(maxsize=8)
def _opened(folder: str) -> Any:
    import tensorflow_datasets as tfds

    with quiet():
        return tfds.builder_from_directory(folder)


@functools.lru_cache(maxsize=24)
def _source(folder: str, split: str) -> Any:
    return _opened(folder).as_data_source(split=split)


def _whole(value: Any, at_least: int = 1) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= at_least
