"""Read the data sets that `prepare` wrote into the cache, with TensorFlow Datasets (TFDS, see `builder.py`).

The name of a folder in the cache holds every setting and the version of the recipe. So an existing folder can be
reused for the same settings. TFDS writes into a folder of another name and renames it at the end, so an interrupted
preparation leaves no folder that looks complete.
"""

import contextlib
import errno
import functools
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from absl import logging

from hyperrecon_jax.data.dataset import Dataset, Samples, Split, load_into_memory, on_disk
from hyperrecon_jax.physics.sample import Coils, Sample
from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.runtime.errors import InputError


def read(folder: Path, *, disk: bool | None = None, splits: Sequence[str] = Dataset._fields) -> Dataset:
    """Read a prepared data set.

    Args:
        folder: its folder in the cache, from `prepare.mni_folder` or `prepare.files_folder`.
        disk: True leaves the samples on disk, False reads all of them into memory. None reads them into memory if they take
            at most half of the free memory.
        splits: those that are needed, of "train", "val", "test"; the others stay on disk.

    Raises:
        InputError: if the files in the folder are damaged.
    """
    with name_damaged_folder(folder):
        slices = metadata(folder)["slices"]
        sets = {split: _samples(folder, split, sum(slices[split])) for split in Dataset._fields}
        if disk is None:
            size = sum(samples.nbytes for samples in sets.values())
            disk = distributed.broadcast_from_primary(lambda: size > psutil.virtual_memory().available / 2)
        if not disk:
            sets |= {split: load_into_memory(sets[split]) for split in splits}
    ends = np.cumsum([0, *(len(slices[split]) for split in sets)])
    return Dataset(
        *(
            Split(samples, np.repeat(np.arange(start, start + len(slices[split]), dtype=np.int32), slices[split]))
            for (split, samples), start in zip(sets.items(), ends, strict=False)
        )
    )


def metadata(folder: Path) -> dict[str, Any]:
    """The metadata of a prepared data set; `builder.py` says what they hold.

    Raises:
        InputError: if the files in the folder are damaged.
    """
    with name_damaged_folder(folder):
        return dict(_open_builder(str(folder)).info.metadata)


@contextlib.contextmanager
def name_damaged_folder(folder: Path) -> Iterator[None]:
    """Turn any error into an `InputError` that names the folder.

    Damaged JSON, protocol buffers and records raise many kinds of errors; there is no list of them. Only an error of the
    system says nothing about the files, unless one is missing.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except OSError as error:
        if error.errno in (None, errno.ENOENT):
            raise _damage(folder, error) from error
        raise InputError(f"The cached data in {folder} cannot be opened: {error.strerror}.") from error
    except Exception as error:
        raise _damage(folder, error) from error


def _damage(folder: Path, error: Exception) -> InputError:
    return InputError(
        f"The cached data in {folder} cannot be read ({type(error).__name__}: {error}); delete that folder to have it"
        " prepared again."
    )


@contextlib.contextmanager
def silence_tfds() -> Iterator[None]:
    """Inside, TFDS shows no progress bars, no messages on stdout and no warnings; we show one line of progress instead."""
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


def forget_open_folders() -> None:
    """Close what `read` holds open, since a folder may have been deleted and prepared again under the same name."""
    _open_builder.cache_clear()
    _open_split.cache_clear()


def _samples(folder: Path, split: str, count: int) -> Samples:
    stored_count = len(_open_split(str(folder), split))
    if stored_count != count:
        raise ValueError(f"{stored_count} images in {split} instead of {count}")
    # Evaluations on disk hold a digest of this name: a change to it would make them look like those of other images.
    digest = hashlib.sha256(json.dumps(metadata(folder), sort_keys=True).encode()).hexdigest()[:16]
    name = f"{split} of {'/'.join(folder.parts[-3:])}, {digest}"
    return on_disk(count, functools.partial(_read_sample, str(folder), split), name)


def _read_sample(folder: str, split: str, index: int) -> Sample:
    """Read one sample. A module-level function, so that a partial of it can be sent to another process."""
    example = _open_split(folder, split)[index]
    image = np.divide(example["image"], np.float32(65535))
    coils = None
    if "kspace" in example:
        coils = Coils(*(example[name].view(np.complex64)[..., 0] for name in Coils._fields))
    return Sample(image, example.get("label"), coils)


@functools.lru_cache(maxsize=8)
def _open_builder(folder: str) -> Any:
    import tensorflow_datasets as tfds

    _check_features(Path(folder))
    with silence_tfds():
        return tfds.builder_from_directory(folder)


def _check_features(folder: Path) -> None:
    """Check that the examples of a prepared data set are arrays that `builder.py` writes.

    TFDS imports each class that these files name, so a cache of somebody else could execute a module of the working folder.

    Raises:
        ValueError: if they name anything else.
    """
    from tensorflow_datasets import features

    def class_name(feature):
        return f"{feature.__module__}.{feature.__name__}"

    content = json.loads((folder / "features.json").read_text())
    tensors = content["featuresDict"].pop("features")
    is_ours = content == {"pythonClassName": class_name(features.FeaturesDict), "featuresDict": {}}
    is_ours &= {*tensors} <= {"image", "label", *Coils._fields}
    for tensor in tensors.values():
        is_ours &= {*tensor} == {"pythonClassName", "tensor"} and tensor["pythonClassName"] == class_name(features.Tensor)
    information = json.loads((folder / "dataset_info.json").read_text())
    if not is_ours or "features" in information or information.get("fileFormat") != "array_record":
        raise ValueError("its description names other classes than ours, and was not used")


@functools.lru_cache(maxsize=24)
def _open_split(folder: str, split: str) -> Any:
    return _open_builder(folder).as_data_source(split=split)
