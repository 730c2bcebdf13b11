"""Prepare a data set before training, and describe it: subjects, slices, and what was dropped for which reason."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax import data, figures
from hyperrecon_jax.runs.config import CHANGEABLE_ON_RESUME, complete, default_config
from hyperrecon_jax.runs.datasets import prepared_folder, sample_shape
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime import memory, paths
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import InputError

PICTURE = "slices.png"
NUM_SLICES = 6  # of each split in the picture
NUM_NOTES = 12  # lines about what was done to files
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


def prepare(config: ConfigDict | Mapping[str, Any], *, say: Say = print) -> Path:
    """Prepare `config.data` if it is not prepared yet, and describe it. After an interruption the same call continues.

    Args:
        config: settings, of which only those of the data matter; missing ones take their default.
        say: takes lines for the user.

    Returns:
        The folder of the prepared data, with a picture of random slices of each split.

    Raises:
        InputError: for a source that needs no preparation, or as `datasets.load_data` does.
    """
    if config.get("data", {}).get("source") == "arrays":
        raise InputError('config.data.source must be one that is prepared, got "arrays", whose files are read as they are.')
    config = complete(config)
    folder = prepared_folder(config)
    dataset = data.read(folder, disk=True)
    say(describe(data.metadata(folder), dataset))
    try:
        figures.image_rows(folder / PICTURE, _random_slices(dataset, config.data.seed))
        say(f"Look at {folder / PICTURE}.")
    except OSError as error:  # the cache belongs to another user
        say(f"There is no picture: {error}.")
    say(f"Train on it: {training_command(config)}")
    return folder


def describe(metadata: Mapping[str, Any], dataset: data.Dataset) -> str:
    """A prepared data set in a few lines."""
    lines = [f"{'split':<12}{'subjects':>10}{'slices':>10}"]
    for split, name in SPLIT_NAMES.items():
        slices = metadata["slices"][split]
        lines.append(f"{name:<12}{len(slices):>10,}{sum(slices):>10,}")
    if "dropped" in metadata:
        lines.append(f"Slices dropped: {_count_reasons(metadata['dropped']) or 'none'}.")
    skipped = dict(metadata.get("skipped", {}))
    if metadata.get("excluded"):
        skipped[""] = {"left out by --include and --exclude": metadata["excluded"]}
    if any(skipped.values()):
        lines.append(f"Files skipped: {_count_reasons(skipped)}.")
    lines += _list_notes(metadata.get("notes", {}))
    for subject, reason in metadata.get("unusable", {}).items():
        lines.append(f"Not used: {subject}: {reason}")
    example = dataset.train.samples.example
    size = sum(samples.nbytes for samples, _ in dataset)
    labels = ", with labels" if example.label is not None else ""
    coils = f", with k-space of {example.coils.kspace.shape[0]} coils" if example.coils is not None else ""
    h, w = sample_shape(dataset.train.samples)
    lines.append(f"Slices are {h} x {w}{labels}{coils}; all of them take {memory.format_bytes(size)} of memory.")
    return "\n".join(map(paths.printable, lines))  # names of subjects are those of files


def training_command(config: ConfigDict) -> str:
    """The command that trains on these data."""
    defaults, flags = default_config().data, []
    for key, value in config.data.items():
        if value != defaults[key] and (f"data.{key}" not in CHANGEABLE_ON_RESUME or key == "cache"):
            has_words = isinstance(value, tuple) and any(isinstance(item, str) for item in value)
            text = ",".join(map(str, value)) if isinstance(value, tuple) and not has_words else str(value)
            if key in ("root", "cache"):  # so that the command works from any folder
                text = os.path.abspath(os.path.expanduser(text))
            flags.append(shlex.quote(f"--config.data.{key}={text}"))
    return " ".join([adapt("hyperrecon train --config paper_csmri_supervised_4x"), *flags])


def _random_slices(dataset: data.Dataset, seed: int) -> dict[str, tuple[np.ndarray, list[str]]]:
    """For each split some images `(n, h, w)` and their titles."""
    rng = np.random.default_rng(seed)
    groups = {}
    for split, (samples, subjects) in zip(dataset._fields, dataset, strict=True):
        index = np.sort(rng.choice(samples.size, min(NUM_SLICES, samples.size), replace=False))
        first_slice = np.searchsorted(subjects, subjects[index])  # the first of the same subject
        subject_numbers, slice_numbers = subjects[index] - subjects[0] + 1, index - first_slice + 1
        titles = [f"subject {i}, slice {j}" for i, j in zip(subject_numbers, slice_numbers, strict=True)]
        groups[SPLIT_NAMES[split]] = samples.take(index).image[..., 0], titles
    return groups


def _list_notes(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """What was done to the files, such as how their values were scaled; each note once, with the number of subjects.

    Those of most subjects come first: notes with numbers, such as a scale, are of one subject each and often too many.
    """
    subjects: dict[str, list[str]] = {}
    for subject, subject_notes in notes.items():
        for note in subject_notes:
            subjects.setdefault(note, []).append(subject)
    lines = [
        f"Note: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}."
        for note, names in sorted(subjects.items(), key=lambda item: -len(item[1]))
    ]
    more = len(lines) - NUM_NOTES
    return lines if more <= 0 else [*lines[:NUM_NOTES], f"... and {more} more notes."]


def _count_reasons(dropped: Mapping[str, Mapping[str, int]]) -> str:
    """For which reasons slices or files of all subjects were left out, and how many: "12 (background alone)"."""
    totals: dict[str, int] = {}
    for counts in dropped.values():
        for reason, count in counts.items():
            totals[reason] = totals.get(reason, 0) + count
    return ", ".join(f"{count:,} ({reason})" for reason, count in totals.items() if count)
