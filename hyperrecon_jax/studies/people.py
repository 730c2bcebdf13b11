"""The people on whom runs are studied: a folder of images, without the people whom a run saw in training."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from tqdm import tqdm

from hyperrecon_jax.data.sources import folder
from hyperrecon_jax.data.sources.base import Settings
from hyperrecon_jax.data.subjects import order_subjects
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies.reconstruction_methods import training_folders


class People(NamedTuple):
    """Slices of people."""

    images: np.ndarray  # (n, h, w, 1) float32 in [0, 1]
    subjects: np.ndarray  # (n,) int32, index into `names`
    names: list[str]


def check_people(root: str, *, slices: int, size: int) -> None:
    """Check the settings of a study of people.

    Args:
        root: a folder of images, one sub-folder for each person (`data/sources/folder.py`).
        slices: at most this many of each person, evenly spaced.
        size: the pixels along both sides to which slices are resampled.

    Raises:
        InputError: if there is no such folder, or nobody in it, or a number is too small.
    """
    if not root:
        raise InputError("The study needs images of people: --root must be a folder with a sub-folder for each person.")
    if slices < 1:
        raise InputError(f"The study needs at least 1 slice of each person, got {slices}.")
    folder.find(Path(root), _settings(slices=slices, size=size))  # raises if there is nobody


def _settings(*, slices: int, size: int) -> Settings:
    """How slices are made of the files of a person."""
    return Settings(size=size, slices=slices, coils=0, acquisition="", whiten=False)


def read_people(root: Path, *, slices: int, size: int, say: Say = print) -> People:
    """The slices of all people in a folder. People whose files cannot be used are left out, and named to the user.

    Raises:
        InputError: if there is no such folder, or nobody can be used.
    """
    settings = _settings(slices=slices, size=size)
    images, names = [], []
    for name, files in folder.find(root, settings).items():
        try:
            images.append(folder.read(files, settings).image)
        except InputError as error:
            say(f"Left out: {name}: {error}")
            continue
        names.append(name)
    if not images:
        raise InputError(f"{root} must hold images of people, but none can be used.")
    subjects = np.repeat(np.arange(len(images), dtype=np.int32), [len(stack) for stack in images])
    return People(np.concatenate(images)[..., None], subjects, names)


def keep_unseen(people: People, root: Path, runs: Sequence[Path]) -> People:
    """The people whom no run saw in its training or validation.

    A run that was trained on a folder saw all but its test subjects (`data/subjects.py`). Runs of other data, and of other
    folders, leave everybody.

    Raises:
        InputError: if nobody is left.
    """
    unseen = set(people.names)
    for config in (config for run in runs for config in training_folders(run)):
        if paths.expand(config.data.root, argument="config.data.root").resolve() == root.resolve():
            unseen &= set(order_subjects(people.names, config.data.seed)[: config.data.subjects[2]])
    if not unseen:
        raise InputError(f"{root} must hold people whom none of the runs saw, but {', '.join(map(str, runs))} saw all.")
    indices = [index for index, name in enumerate(people.names) if name in unseen]
    rows = np.isin(people.subjects, indices)
    subjects = np.searchsorted(indices, people.subjects[rows]).astype(np.int32)
    return People(people.images[rows], subjects, [people.names[index] for index in indices])


def show_progress(people: People, description: str) -> Iterable[np.ndarray]:
    """The images of people one by one, with a progress bar for the user."""
    interval = 0.1 if sys.stderr.isatty() else 60  # seconds: in a log file each update is a line
    return tqdm(people.images, description, unit=" images", file=sys.stderr, mininterval=interval)


def read_unseen(root: Path, runs: Sequence[Path], *, slices: int, size: int, say: Say) -> People:
    """The slices of all people whom no run saw; tells the user how many there are. Raises as the two functions above."""
    all_people = read_people(root, slices=slices, size=size, say=say)
    people = keep_unseen(all_people, root, runs)
    if len(people.names) < len(all_people.names):
        say(f"Left out: {len(all_people.names) - len(people.names)} people in whose images a run was trained or validated.")
    say(f"{len(people.names)} people, {len(people.images)} slices of {size} x {size}.")
    return people


def person_means(values: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """The mean over the slices of each person, in the order of their numbers."""
    return np.array([values[subjects == subject].mean() for subject in np.unique(subjects)])


def person_statistics(values: Mapping[str, np.ndarray], subjects: np.ndarray) -> dict[str, dict[str, float]]:
    """Statistics over people of values of images: "mean", and "low" and "high", its 95 % bootstrap interval over people.

    An image's values are averaged over the slices of a person, and these over people.

    Args:
        values: by name, one number for each image, `(n,)`.
        subjects: `(n,)` integers, the person of each image.
    """
    ds = xr.Dataset({name: ("image", row) for name, row in values.items()}, {"subject": ("image", subjects)})
    summary = scores.summarize(ds)
    columns = {"mean": "subject_mean", "low": "low", "high": "high"}
    return {
        name: {column: float(summary[name].sel(statistic=statistic)) for column, statistic in columns.items()}
        for name in values
    }
