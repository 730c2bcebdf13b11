"""The images that `config.data` describes."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from hyperrecon_jax import data
from hyperrecon_jax.runs.config_check import SYNTHETIC
from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.runtime.errors import InputError


def load_data(config: ConfigDict, *, splits: Sequence[str] = data.Dataset._fields) -> data.Dataset:
    """The samples of `config.data`. Only test samples have labels, unless the task is segmentation.

    Args:
        config: settings; `config.data` and the name of the task matter.
        splits: those that are needed; the others may stay on disk.

    Raises:
        InputError: if the data cannot be read or prepared.
    """
    settings = config.data
    if settings.source == "arrays":
        paths = (settings.train, settings.val, settings.test)
        labels = ("config.data.train", "config.data.val", "config.data.test")
        if len(set(paths)) == 1:  # from the settings, or from `evaluate --data`
            labels = ("The file", "The file", "The file")
        return data.arrays(train=settings.train, val=settings.val, test=settings.test, labels=labels)
    folder = distributed.run_primary_first(partial(prepared_folder, config))
    disk = None if settings.placement == "auto" else settings.placement == "disk"
    dataset = data.read(folder, disk=disk, splits=splits)
    if config.task.name == "segmentation":
        return dataset
    return dataset._replace(train=data.drop_labels(dataset.train), val=data.drop_labels(dataset.val))


def prepared_folder(config: ConfigDict) -> Path:
    """The folder of the prepared data of `config.data`, from any source but "arrays". Prepares them if it is missing.

    Raises:
        InputError: if the data cannot be prepared.
    """
    settings = config.data
    cache = settings.cache or None
    try:
        if settings.source in SYNTHETIC:
            return data.synthetic_folder(
                settings.source,
                size=settings.size,
                subjects=settings.subjects,
                slices=settings.slices,
                seed=settings.seed,
                cache=cache,
            )
        return data.files_folder(
            settings.source,
            root=settings.root,
            settings=data.Settings(**{name: settings[name] for name in data.Settings._fields}),
            subjects=settings.subjects,
            seed=settings.seed,
            cache=cache,
            workers=max(settings.workers, 1),
        )
    except InputError as error:  # rename arguments in the message to the user's settings
        raise InputError(re.sub(rf"`({'|'.join(settings)})`", r"config.data.\1", str(error))) from error


def image_shape(config: ConfigDict) -> tuple[int, int]:
    """The `(h, w)` of the images of `config.data`.

    Raises:
        InputError: if the images are the user's arrays and can no longer be read.
    """
    if config.data.source != "arrays":
        return config.data.size, config.data.size
    return sample_shape(load_data(config).train.samples)


def sample_shape(samples: data.Samples) -> tuple[int, int]:
    """The `(h, w)` of the images."""
    h, w = samples.example.image.shape[:2]
    return h, w
