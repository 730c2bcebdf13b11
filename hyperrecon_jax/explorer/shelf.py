"""The volumes on show: the run's own test images and the files that were dropped, and their slices as they are measured.

A volume is known by its id: "test" holds the test images, another the digest of the file that it came from. Any thread may
ask.
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
from hyperrecon_jax.explorer.measurement import Acquisition, acquisition, sample
from hyperrecon_jax.physics.problem import Measurement, Problem, measured
from hyperrecon_jax.physics.sample import Sample, take
from hyperrecon_jax.runs.load import TrainedRun
from hyperrecon_jax.runs.task import make_mask, make_problem
from hyperrecon_jax.runtime.errors import InputError

MEASURED = 16  # slices whose measurements are kept
UPLOADS = 2**30  # bytes of volumes that are kept beside the test images; the oldest go


class Shown(NamedTuple):
    """A volume on show."""

    name: str
    note: str
    file: volumes.Volume  # of which slices are measured as the run does, unless it is k-space
    problem: Problem
    truth: bool  # it is known
    start: int  # the slice to show first: that with the most in it
    acquired: Acquisition | None = None  # of k-space; `file` has the same


class Measured(NamedTuple):
    """A slice as the network gets it."""

    y: Measurement
    net_input: jax.Array  # (h, w, 2)
    x: jax.Array | None  # (h, w, 1), the truth


class Shelf:
    """The volumes of a run.

    Args:
        trained: the run, with its test images.
    """

    def __init__(self, trained: TrainedRun):
        self.config, self._key = trained.config, trained.keys.test  # of the noise
        self._test = trained.dataset.test.samples
        images = data.images(self._test)
        file = volumes.Volume(images, "image", None, (0.0, 1.0), "")
        problem = trained.problem
        self._lock = threading.RLock()
        self._shown: OrderedDict[str, Shown] = OrderedDict(
            test=Shown("test images", "", file, problem, True, _fullest(images))
        )
        self._problems: dict[tuple[Any, ...], Problem] = {}  # by shape and kind: programs are compiled for each
        self._measured = functools.lru_cache(MEASURED)(self._measure)

    def listed(self) -> list[dict[str, Any]]:
        """`volume` of each, the test images first."""
        with self._lock:
            return [self.volume(name) for name in self._shown]

    def volume(self, volume: str) -> dict[str, Any]:
        """A volume's id, name, size, the slice to start at, whether its truth is known, and what was done to its file."""
        shown = self.find(volume)
        count, (h, w) = len(shown.file.slices), shown.file.slices.shape[-2:]
        return {
            "id": volume,
            "name": shown.name,
            "slices": count,
            "height": h,
            "width": w,
            "start": shown.start,
            "truth": shown.truth,
            "note": shown.note,
        }

    def task(self) -> str:
        """What the run does to an image, as people say it."""
        task = self.config.task
        noise = f", noise {task.sigma:g}" if task.sigma else ""
        return {
            "csmri": f"{task.acceleration:g}-fold under-sampled MRI{noise}",
            "denoising": f"denoising{noise}",
            "super_resolution": f"{task.factor}-fold super-resolution{noise}",
        }[task.name]

    def add(self, name: str, content: bytes, kind: str = "image") -> str:
        """Take in a file; its id.

        Args:
            name: of the file.
            content: of the file.
            kind: "image": measure its slices as the run's task does. "kspace": take it as it was measured.

        Raises:
            InputError: if it cannot be read, k-space means nothing to the run's task, or no sensitivities of its coils can
                be had.
        """
        if kind == "kspace" and self.config.task.name != "csmri":
            raise InputError(f"Measured k-space means nothing to this run, whose task is {self.task()}.")
        volume = hashlib.sha256(kind.encode() + content).hexdigest()[:20]
        file = volumes.read(name, content, kind=kind)
        shown = self._show(name, file)
        with self._lock:
            self._shown.pop(volume, None)
            self._shown[volume] = shown
            size = {known: _bytes(shown) for known, shown in self._shown.items() if known != "test"}
            for old in [known for known in size if known != volume]:
                if sum(size.values()) <= UPLOADS:
                    break
                del self._shown[old], size[old]
                self._measured.cache_clear()
        return volume

    def look(self, volume: str, index: int) -> tuple[Shown, Measured]:
        """A volume, and one of its slices as the network gets it; raises `InputError` if there is no such.

        The first look at a slice of k-space of several coils takes seconds, for their sensitivities.
        """
        with self._lock:
            return self.find(volume, index), self._measured(volume, index)

    def find(self, volume: str, index: int = 0) -> Shown:
        """A volume; raises `InputError` if it is not there any more, or has no such slice."""
        shown = self._shown.get(volume)
        if shown is None:
            raise InputError(f"There is no volume {volume!r} any more; drop the file again.")
        if not 0 <= index < len(shown.file.slices):
            raise InputError(f"The slice must be in [0, {len(shown.file.slices) - 1}], got {index}.")
        return shown

    def _show(self, name: str, file: volumes.Volume) -> Shown:
        h, w = file.slices.shape[-2:]
        trained = self._shown["test"].file.slices.shape[-2:]
        notes = [file.note]
        if (h, w) != trained:
            notes.append(f"The network was trained on {trained[0]} x {trained[1]} pixels, this is {h} x {w}.")
        start = _fullest(file.slices)
        if file.kind == "image":
            return Shown(name, _sentences(notes), file, self._problem((h, w), "image"), True, start)
        acquired = acquisition(name, file.slices)
        file = file._replace(slices=acquired.kspace)
        problem = self._problem((h, w), "all of k-space" if acquired.full else "part of k-space")
        return Shown(name, _sentences([*notes, *acquired.notes]), file, problem, acquired.full, start, acquired)

    def _problem(self, shape: tuple[int, int], kind: str) -> Problem:
        if (shape, kind) not in self._problems:
            if kind == "image":
                problem = make_problem(self.config, shape, coils=0)
            else:  # no noise but its own; of a part, J looks where something was measured
                problem = measured(make_mask(self.config, shape) if kind == "all of k-space" else jnp.ones(shape))
            self._problems[shape, kind] = problem
        return self._problems[shape, kind]

    def _measure(self, volume: str, index: int) -> Measured:
        shown = self.find(volume, index)
        if volume == "test":
            samples = self._test.take(np.array([index]))
        elif shown.acquired is not None:
            samples = jax.tree.map(lambda leaf: leaf[None], sample(shown.acquired, index))
        else:
            samples = Sample(shown.file.slices[index][None, ..., None])
        samples = jax.tree.map(jnp.asarray, samples)
        y = take(scoring.measure(shown.problem, self._key, samples, jnp.asarray([index])), 0)
        return Measured(y, shown.problem.to_net_input(y), samples.image[0] if shown.truth else None)


def _fullest(slices: np.ndarray) -> int:
    return int(np.argmax([np.abs(image).mean() for image in slices]))


def _bytes(shown: Shown) -> int:
    return shown.file.slices.nbytes


def _sentences(parts: Sequence[str]) -> str:
    return " ".join(f"{part[:1].upper()}{part[1:].rstrip('.')}." for part in parts if part)
