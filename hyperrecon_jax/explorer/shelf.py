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

from hyperrecon_jax import data, evaluate, operators, volumes
from hyperrecon_jax.errors import InputError
from hyperrecon_jax.experiment import Experiment, make_mask, make_problem
from hyperrecon_jax.problem import Measurement, Problem, simulated
from hyperrecon_jax.sample import Sample, take

MEASURED = 16  # slices whose measurements are kept
UPLOADS = 2**30  # bytes of volumes that are kept beside the test images; the oldest go


class Shown(NamedTuple):
    """A volume on show."""

    name: str
    note: str
    file: volumes.Volume  # of which slices are measured as the run does, unless it is k-space
    problem: Problem
    truth: np.ndarray | None  # (n, h, w)
    start: int  # the slice to show first: that with the most in it


class Measured(NamedTuple):
    """A slice as the network gets it."""

    y: Measurement
    lifted: jax.Array  # (h, w, 2)
    x: jax.Array | None  # (h, w, 1), the truth


class Shelf:
    """The volumes of a run.

    Args:
        experiment: of the run.
    """

    def __init__(self, experiment: Experiment):
        self.config, self._key = experiment.config, experiment.key_test  # of the noise
        self._test = experiment.dataset.test.samples
        images = data.images(self._test)
        file = volumes.Volume(images, "image", None, (0.0, 1.0), "")
        problem = experiment.setup.problem
        self._lock = threading.RLock()
        self._shown: OrderedDict[str, Shown] = OrderedDict(
            test=Shown("test images", "", file, problem, images, _fullest(images))
        )
        self._problems: dict[tuple[int, ...], Problem] = {}  # of images, by their shape
        self._measured = functools.lru_cache(MEASURED)(self._measure)

    def listed(self) -> list[dict[str, Any]]:
        """`volume` of each, the test images first."""
        with self._lock:
            return [self.volume(name) for name in self._shown]

    def volume(self, volume: str) -> dict[str, Any]:
        """A volume's id, name, size, the slice to start at, whether its truth is known, and what was done to its file."""
        shown = self.find(volume)
        count, h, w = shown.file.slices.shape
        return {
            "id": volume,
            "name": shown.name,
            "slices": count,
            "height": h,
            "width": w,
            "start": shown.start,
            "truth": shown.truth is not None,
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
            InputError: if it cannot be read, or k-space means nothing to the run's task.
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
        """A volume, and one of its slices as the network gets it; raises `InputError` if there is no such."""
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
        shape = file.slices.shape[1:]
        trained = self._shown["test"].file.slices.shape[1:]
        notes = [file.note]
        if shape != trained:
            notes.append(f"The network was trained on {trained[0]} x {trained[1]} pixels, this is {shape[0]} x {shape[1]}.")
        start = _fullest(file.slices)
        if file.kind == "image":
            return Shown(name, _sentences(notes), file, self._problem(shape), file.slices, start)
        sampled = (np.abs(file.slices) > 0).any(0)
        if sampled.mean() > 0.99:  # all of k-space: its image is the truth, and the run's mask is applied
            notes.append("All of k-space is there: it is under-sampled as the run does, and its own image is the truth.")
            truth = np.abs(np.fft.ifft2(file.slices, norm="ortho")).astype(np.float32)
            mask = make_mask(self.config, (shape[0], shape[1]))
            return Shown(name, _sentences(notes), file, simulated(operators.csmri(mask)), truth, start)
        notes.append(f"{sampled.mean():.0%} of k-space was measured.")
        problem = simulated(operators.csmri(jnp.asarray(sampled, jnp.float32)))
        return Shown(name, _sentences(notes), file, problem, None, start)

    def _problem(self, shape: tuple[int, ...]) -> Problem:
        if shape not in self._problems:
            self._problems[shape] = make_problem(self.config, (shape[0], shape[1]), coils=0)
        return self._problems[shape]

    def _measure(self, volume: str, index: int) -> Measured:
        shown = self.find(volume, index)
        x = None if shown.truth is None else jnp.asarray(shown.truth[index])[..., None]
        if volume == "test":
            samples = jax.tree.map(jnp.asarray, self._test.take(np.array([index])))
        elif shown.file.kind == "kspace":  # the mask on the k-space that was measured, no noise but its own
            samples = Sample(jnp.fft.ifft2(jnp.asarray(shown.file.slices[index]), norm="ortho")[None, ..., None])
        else:
            samples = Sample(jnp.asarray(shown.file.slices[index])[None, ..., None])
        y = take(evaluate.measure(shown.problem, self._key, samples, jnp.asarray([index])), 0)
        return Measured(y, shown.problem.lift(y), x)


def _fullest(slices: np.ndarray) -> int:
    return int(np.argmax([np.abs(image).mean() for image in slices]))


def _bytes(shown: Shown) -> int:
    return shown.file.slices.nbytes + (0 if shown.truth is None or shown.truth is shown.file.slices else shown.truth.nbytes)


def _sentences(parts: Sequence[str]) -> str:
    return " ".join(f"{part[:1].upper()}{part[1:].rstrip('.')}." for part in parts if part)
