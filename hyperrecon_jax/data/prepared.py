"""The synthetic population, prepared once and cached on disk by TensorFlow Datasets (`builder.py`).

A folder of the cache is named after every setting and after the version of the recipe: what is found there is what
would be made again. TFDS writes into a folder of another name and renames it once all is there, so that an interrupted
preparation leaves nothing that looks complete.
"""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from hyperrecon_jax.data.dataset import Dataset, Split
from hyperrecon_jax.errors import InputError


def mni(
    *,
    size: int,
    subjects: tuple[int, int, int] = (100, 25, 50),
    slices: int,
    seed: int = 0,
    root: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Synthetic T1-weighted brains with tissue labels: prepared on the first call, read from the cache afterwards.

    They are one anatomy, the average of 152 people, under random deformation and contrast. A test on them is a test on
    unseen deformation and contrast of that anatomy, not on new people (see `population.py`).

    Args:
        size: pixels along both sides, a multiple of 8; the field of view is 224 mm at every size.
        subjects: how many subjects for training, validation and test. No subject, and no seed, is in two splits.
        slices: axial slices a subject, spread evenly over the brain. Images are in order of subject, then slice.
        seed: of the whole population.
        root: the cache; by default `$HYPERRECON_JAX_CACHE`, else `hyperrecon_jax` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        InputError: if an argument is out of range, the cache cannot be written, or what it holds is damaged.
    """
    if not _whole(size) or size % 8:
        raise InputError(f"`size` must be a positive multiple of 8 (the U-Net halves it three times), got {size!r}.")
    if not _whole(slices):
        raise InputError(f"`slices` must be a positive whole number, got {slices!r}.")
    if not isinstance(subjects, (tuple, list)) or len(subjects) != 3 or not all(map(_whole, subjects)):
        raise InputError(f"`subjects` must be three positive whole numbers (train, val, test), got {subjects!r}.")
    if not _whole(seed, at_least=0):
        raise InputError(f"`seed` must be a whole number of at least 0, got {seed!r}.")
    from hyperrecon_jax.data import builder  # here, because TFDS is slow to import

    train, val, test = (int(n) for n in subjects)
    config = builder.Config.of(size=int(size), subjects=(train, val, test), slices=int(slices), seed=int(seed))
    cache = cache_folder(root)
    folder = cache / builder.MniPopulation.name / config.name / builder.RECIPE
    if not folder.exists():
        _prepare(config, cache, folder)
    try:
        return _read(_open(config, cache))
    except MemoryError:
        raise
    except Exception as error:  # damaged JSON, protocol buffers and records fail in as many ways
        raise InputError(
            f"The cached data in {folder} cannot be read ({type(error).__name__}: {error}); delete that folder to have"
            " it prepared again."
        ) from error


def _open(config: Any, cache: Path) -> Any:
    from hyperrecon_jax.data import builder

    with _quiet():
        return builder.MniPopulation(config=config, data_dir=cache, file_format="array_record")


def _whole(value: Any, at_least: int = 1) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= at_least


def cache_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """Where what is prepared once is kept: `root`, else `$HYPERRECON_JAX_CACHE`, else in the user's folder of caches."""
    named = os.environ.get("HYPERRECON_JAX_CACHE") if root is None else root
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hyperrecon_jax"
    return Path(named or usual).expanduser().absolute()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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


def _prepare(config: Any, cache: Path, folder: Path) -> None:
    need = sum(config.subjects) * config.slices * config.size**2 * 3  # bytes: two of image and one of label a pixel
    try:
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
        if free < need:
            raise InputError(
                f"`root` {cache} has {free / 1e9:.1f} GB left, but the data need up to {need / 1e9:.1f} GB; free some"
                " or name another folder as `root` or in $HYPERRECON_JAX_CACHE."
            )
        made = _open(config, cache)
        with _quiet():
            made.download_and_prepare()
    except OSError as error:
        if folder.exists():
            return  # another process prepared the same data at the same time, and was first to rename its folder
        raise InputError(
            f"`root` {cache} cannot be written ({error}); name another folder as `root` or in $HYPERRECON_JAX_CACHE."
        ) from error


def _read(made: Any) -> Dataset:
    """All splits of a prepared builder, in memory. Raises whatever damage makes TFDS raise, or ValueError."""
    config = made.builder_config
    splits = []
    for name, subjects in zip(Dataset._fields, config.subjects, strict=True):
        source = made.as_data_source(split=name)
        n, size = subjects * config.slices, config.size
        if len(source) != n:
            raise ValueError(f"{len(source)} images in {name} instead of {n}")
        images = np.empty((n, size, size, 1), np.float32)
        labels = np.empty((n, size, size), np.uint8)
        numbers = np.empty(n, np.int32)
        for i, example in enumerate(source):
            np.divide(example["image"], np.float32(65535), out=images[i])
            labels[i] = example["label"]
            numbers[i] = example["subject"]
        splits.append(Split(images, labels, numbers))
    return Dataset(*splits)
