"""The volumes that the page can show: the test images of the run, and files that were dropped on it.

A volume has an id: "test" for the test images, else the digest of its file. Any thread may call the functions.
"""

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax import data
from hyperrecon_jax.data import volumes
from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.explorer.measurement import Acquisition, inspect_kspace, make_sample
from hyperrecon_jax.physics.net_input import NetInput
from hyperrecon_jax.physics.problem import Measurement, Problem, measured
from hyperrecon_jax.physics.sample import Sample, take
from hyperrecon_jax.runs.load import TrainedRun
from hyperrecon_jax.runs.task import make_mask, make_problem, match_network
from hyperrecon_jax.runtime.errors import InputError

MEASUREMENT_CACHE_SIZE = 16  # slices whose measurements stay in memory
UPLOAD_CACHE_BYTES = 2**30  # bytes of dropped files that stay in memory; the oldest are removed first


class OpenVolume(NamedTuple):
    """A volume and how its slices are measured."""

    name: str
    note: str  # for the user
    file: volumes.Volume  # images, which the problem of the run measures; or k-space, which a scanner measured
    problem: Problem
    has_reference: bool  # the true image is known
    start: int  # the slice to show first: the one with the largest mean
    acquisition: Acquisition | None = None  # of k-space; its array is that of `file`


class MeasuredSlice(NamedTuple):
    """A slice as the network gets it."""

    y: Measurement
    net_input: NetInput
    x: jax.Array | None  # (h, w, 1), the reference image; None if it is not known


class VolumeStore:
    """The volumes of a run.

    Args:
        trained: the run, with its test images.
    """

    def __init__(self, trained: TrainedRun):
        self.config = trained.config
        self._noise_key = trained.keys.test
        self._test_samples = trained.dataset.test.samples
        images = data.images(self._test_samples)
        file = volumes.Volume(images, "image", None, (0.0, 1.0), "")
        problem = trained.problem
        self._lock = threading.RLock()
        self._volumes: OrderedDict[str, OpenVolume] = OrderedDict(
            test=OpenVolume("test images", "", file, problem, True, _brightest_slice(images))
        )
        self._problems: dict[tuple[Any, ...], Problem] = {}  # by shape and kind: programs are compiled for each problem
        self._measure_cached = functools.lru_cache(MEASUREMENT_CACHE_SIZE)(self._measure_slice)

    def describe_all(self) -> list[dict[str, Any]]:
        """`describe` of each volume, the test images first."""
        with self._lock:
            return [self.describe(volume) for volume in self._volumes]

    def describe(self, volume: str) -> dict[str, Any]:
        """A volume for the page: id, name, size, first slice, whether its reference is known, what was done to its file."""
        entry = self.get(volume)
        count, (h, w) = len(entry.file.slices), entry.file.slices.shape[-2:]
        return {
            "id": volume,
            "name": entry.name,
            "slices": count,
            "height": h,
            "width": w,
            "start": entry.start,
            "truth": entry.has_reference,
            "note": entry.note,
        }

    def describe_task(self) -> str:
        """The task of the run in words."""
        task = self.config.task
        noise = f", noise {task.sigma:g}" if task.sigma else ""
        return {
            "csmri": f"{task.acceleration:g}-fold under-sampled MRI{noise}",
            "denoising": f"denoising{noise}",
            "super_resolution": f"{task.factor}-fold super-resolution{noise}",
        }[task.name]

    def add(self, name: str, content: bytes, kind: str = "image") -> str:
        """Read a file and keep it; removes the oldest files if there are too many.

        Args:
            name: name of the file.
            content: the bytes of the file.
            kind: "image": the task of the run measures its slices. "kspace": a scanner measured them.

        Returns:
            The id of the volume.

        Raises:
            InputError: if the file cannot be read, the run's task has no k-space, or no sensitivities of the coils can be
                estimated.
        """
        if kind == "kspace" and self.config.task.name != "csmri":
            raise InputError(f"Measured k-space means nothing to this run, whose task is {self.describe_task()}.")
        volume = hashlib.sha256(kind.encode() + content).hexdigest()[:20]
        entry = self._open(name, volumes.read(name, content, kind=kind))
        with self._lock:
            self._volumes.pop(volume, None)
            self._volumes[volume] = entry
            self._remove_oldest(newest=volume)
        return volume

    def measure(self, volume: str, index: int) -> tuple[OpenVolume, MeasuredSlice]:
        """A volume, and one of its slices as the network gets it.

        The first call for a slice of k-space with several coils takes seconds, for the sensitivity maps.

        Raises:
            InputError: if there is no such volume or slice.
        """
        with self._lock:
            return self.get(volume, index), self._measure_cached(volume, index)

    def get(self, volume: str, index: int = 0) -> OpenVolume:
        """A volume; raises `InputError` if it was removed or has no slice `index`."""
        entry = self._volumes.get(volume)
        if entry is None:
            raise InputError(f"There is no volume {volume!r} any more; drop the file again.")
        if not 0 <= index < len(entry.file.slices):
            raise InputError(f"The slice must be in [0, {len(entry.file.slices) - 1}], got {index}.")
        return entry

    def _remove_oldest(self, *, newest: str) -> None:
        """Remove dropped files until the rest fits in `UPLOAD_CACHE_BYTES` bytes, but never the newest."""
        sizes = {volume: entry.file.slices.nbytes for volume, entry in self._volumes.items() if volume != "test"}
        for volume in [volume for volume in sizes if volume != newest]:
            if sum(sizes.values()) <= UPLOAD_CACHE_BYTES:
                break
            del self._volumes[volume], sizes[volume]
            self._measure_cached.cache_clear()

    def _open(self, name: str, file: volumes.Volume) -> OpenVolume:
        h, w = file.slices.shape[-2:]
        trained = self._volumes["test"].file.slices.shape[-2:]
        notes = [file.note]
        if (h, w) != trained:
            notes.append(f"The network was trained on {trained[0]} x {trained[1]} pixels, this is {h} x {w}.")
        start = _brightest_slice(file.slices)
        if file.kind == "image":
            return OpenVolume(name, _sentences(notes), file, self._get_problem((h, w), "image"), True, start)
        acquisition = inspect_kspace(name, file.slices)
        file = file._replace(slices=acquisition.kspace)
        problem = self._get_problem((h, w), "all of k-space" if acquisition.is_full else "part of k-space")
        note = _sentences([*notes, *acquisition.notes])
        return OpenVolume(name, note, file, problem, acquisition.is_full, start, acquisition)

    def _get_problem(self, shape: tuple[int, int], kind: str) -> Problem:
        if (shape, kind) not in self._problems:
            if kind == "image":
                problem = make_problem(self.config, shape, coils=0)
            elif kind == "all of k-space":  # under-sampled by the run's mask; no noise is added
                problem = match_network(self.config, measured(make_mask(self.config, shape)))
            else:  # nothing is taken away: J compares where the scanner measured
                problem = match_network(self.config, measured(jnp.ones(shape)))
            self._problems[shape, kind] = problem
        return self._problems[shape, kind]

    def _measure_slice(self, volume: str, index: int) -> MeasuredSlice:
        entry = self.get(volume)
        if volume == "test":
            samples = self._test_samples.take(np.array([index]))
        elif entry.acquisition is not None:
            samples = jax.tree.map(lambda leaf: leaf[None], make_sample(entry.acquisition, index))
        else:
            samples = Sample(entry.file.slices[index][None, ..., None])
        samples = jax.tree.map(jnp.asarray, samples)
        y = take(scoring.observe_samples(entry.problem, self._noise_key, samples, jnp.asarray([index])), 0)
        return MeasuredSlice(y, entry.problem.to_net_input(y), samples.image[0] if entry.has_reference else None)


def _brightest_slice(slices: np.ndarray) -> int:
    return int(np.argmax([np.abs(image).mean() for image in slices]))


def _sentences(parts: Sequence[str]) -> str:
    return " ".join(f"{part[:1].upper()}{part[1:].rstrip('.')}." for part in parts if part)
