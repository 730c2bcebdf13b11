"""Prepare a data set before it is trained on, and show what became of it: subjects, slices, what was dropped and why."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax import data, figures
from hyperrecon_jax.runs.config import FREE, complete, default_config
from hyperrecon_jax.runs.experiment import prepared_folder
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime import memory
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import InputError

PICTURE = "slices.png"
SHOWN = 6  # slices of each split in the picture
NAMES = {"train": "training", "val": "validation", "test": "test"}


def prepare(config: ConfigDict | Mapping[str, Any], *, say: Say = print) -> Path:
    """Prepare `config.data`, unless it is there already, and tell of it. The same call goes on after an interruption.

    Args:
        config: settings, of which only those of the data matter; missing ones take their default.
        say: gets the lines to show.

    Returns:
        The folder of the prepared data, with a picture of random slices of each split.

    Raises:
        InputError: for a source that has nothing to prepare, or as `experiment.load_data` does.
    """
    if config.get("data", {}).get("source") == "arrays":
        raise InputError('config.data.source must be one that is prepared, got "arrays", whose files are read as they are.')
    config = complete(config)
    folder = prepared_folder(config)
    dataset = data.read(folder, disk=True)
    known = data.metadata(folder)
    rng = np.random.default_rng(config.data.seed)
    groups = {}
    for split, (samples, subjects) in zip(dataset._fields, dataset, strict=True):
        chosen = np.sort(rng.choice(samples.size, min(SHOWN, samples.size), replace=False))
        first = np.searchsorted(subjects, subjects[chosen])  # of the same subject
        of = zip(subjects[chosen] - subjects[0] + 1, chosen - first + 1, strict=True)
        groups[NAMES[split]] = samples.take(chosen).image[..., 0], [f"subject {a}, slice {b}" for a, b in of]
    say(describe(known, dataset))
    try:
        figures.splits(folder / PICTURE, groups)
        say(f"Look at {folder / PICTURE}.")
    except OSError as error:  # somebody else's cache
        say(f"There is no picture: {error}.")
    say(f"Train on it: {command(config)}")
    return folder


def describe(known: Mapping[str, Any], dataset: data.Dataset) -> str:
    """A prepared data set in a few lines."""
    lines = [f"{'split':<12}{'subjects':>10}{'slices':>10}"]
    for name, shown in NAMES.items():
        slices = known["slices"][name]
        lines.append(f"{shown:<12}{len(slices):>10,}{sum(slices):>10,}")
    reasons: dict[str, int] = {}
    for dropped in known.get("dropped", {}).values():
        for reason, count in dropped.items():
            reasons[reason] = reasons.get(reason, 0) + count
    if "dropped" in known:
        told = ", ".join(f"{count:,} ({reason})" for reason, count in reasons.items() if count)
        lines.append(f"Slices dropped: {told or 'none'}.")
    for subject, why in known.get("unusable", {}).items():
        lines.append(f"Not used: {subject}: {why}")
    one = dataset.train.samples.example
    size = sum(samples.nbytes for samples, _ in dataset)
    labels = ", with labels" if one.label is not None else ""
    coils = f", with k-space of {one.coils.kspace.shape[0]} coils" if one.coils is not None else ""
    h, w = one.image.shape[:2]
    lines.append(f"Slices are {h} x {w}{labels}{coils}; all of them take {memory.format_bytes(size)} of memory.")
    return "\n".join(lines)


def command(config: ConfigDict) -> str:
    """The training command on these data."""
    defaults, flags = default_config().data, []
    for key, value in config.data.items():
        if value != defaults[key] and (f"data.{key}" not in FREE or key == "cache"):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            if key in ("root", "cache"):  # wherever the command is given
                text = os.path.abspath(os.path.expanduser(text))
            flags.append(shlex.quote(f"--config.data.{key}={text}"))
    return " ".join([adapt("hyperrecon train --config paper_csmri_supervised_4x"), *flags])
