"""The volumes that the page can show: the test images of the run, and files that were dropped on it.

A volume has an id: "test" for the test images, else the digest of its file. Any thread may call the functions.
"""

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax import data
from hyperrecon_jax.data import volumes
from hyperrecon_jax.data.sources import series
from hyperrecon_jax.data.sources.image_files import is_image, natural_order
from hyperrecon_jax.data.volumes import bart
from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.explorer.coil_samples import CoilSamples
from hyperrecon_jax.explorer.jobs import NOBODY, Job
from hyperrecon_jax.explorer.measurement import MeasuredKspace, inspect_kspace, make_sample
from hyperrecon_jax.explorer.shared_cache import SharedCache
from hyperrecon_jax.physics.acquisition import Acquisition, describe_excess
from hyperrecon_jax.physics.acquisition_estimate import estimate_acquisition
from hyperrecon_jax.physics.net_input import NetInput
from hyperrecon_jax.physics.problem import Measurement, Problem, measured
from hyperrecon_jax.physics.sample import Sample, take
from hyperrecon_jax.runs.acquisitions import parse_acquisition
from hyperrecon_jax.runs.load import TrainedRun
from hyperrecon_jax.runs.task import (
    acquisition_range,
    fix_acquisition,
    make_mask,
    make_problem,
    make_training_problem,
    match_network,
)
from hyperrecon_jax.runtime.errors import InputError

PROBLEM_CACHE_SIZE = 32  # acquisitions whose masks stay in memory
MEASUREMENT_CACHE_SIZE = 16  # slices whose measurements stay in memory
UPLOAD_CACHE_BYTES = 2**30  # bytes of dropped files that stay in memory; the oldest are removed first


class OpenVolume(NamedTuple):
    """A volume and how its slices are measured."""

    name: str
    note: str  # for the user
    file: volumes.Volume  # images, which the problem of the run measures; or k-space, which a scanner measured
    problem: Problem  # of the network inputs and of J; with a range of acquisitions, another one may measure the slices
    has_reference: bool  # the true image is known
    start: int  # the slice to show first: the one with the largest mean
    kspace: MeasuredKspace | None = None  # of a scanner; its array is that of `file`
    estimate: Acquisition | None = None  # of k-space, read off the data, if the run has a range of acquisitions


class MeasuredSlice(NamedTuple):
    """A slice as the network gets it."""

    y: Measurement
    net_input: NetInput
    x: jax.Array | None  # (h, w, 1), the reference image; None if it is not known


class VolumeStore:
    """The volumes of a run.

    Args:
        trained: the run, with its test images.
        settings: those of the run, with its range of acquisitions; None: those of `trained`.
    """

    def __init__(self, trained: TrainedRun, settings: Any = None):
        self.config = trained.config  # with one acquisition
        self.settings = trained.config if settings is None else settings
        self.ranges = acquisition_range(self.settings)
        self._noise_key = trained.keys.test
        self._test_samples = trained.dataset.test.samples
        images = data.images(self._test_samples)
        file = volumes.Volume(images, "image", None, (0.0, 1.0), "")
        problem = make_training_problem(self.settings, images.shape[1:3]) or trained.problem
        self._lock = threading.RLock()
        self._volumes: OrderedDict[str, OpenVolume] = OrderedDict(
            test=OpenVolume("test images", "", file, problem, True, _brightest_slice(images))
        )
        self._problems: dict[tuple[Any, ...], Problem] = {}  # by shape and kind: programs are compiled for each problem
        self._observing_problem = functools.lru_cache(PROBLEM_CACHE_SIZE)(self._make_observing_problem)
        self._coil_samples = CoilSamples(MEASUREMENT_CACHE_SIZE)
        self._measured = SharedCache(MEASUREMENT_CACHE_SIZE)

    def describe_all(self) -> list[dict[str, Any]]:
        """`describe` of each volume, the test images first."""
        with self._lock:
            return [self.describe(volume) for volume in self._volumes]

    def describe(self, volume: str) -> dict[str, Any]:
        """A volume for the page: id, name, size, first slice, whether its reference is known, what was done to its file.

        `aspect` is the height of a pixel divided by its width. With a range of acquisitions also the fields of it that the
        user may choose, and what was read off the data.
        """
        entry = self.get(volume)
        count, (h, w) = len(entry.file.slices), entry.file.slices.shape[-2:]
        return {
            "id": volume,
            "name": entry.name,
            "slices": count,
            "height": h,
            "width": w,
            "aspect": entry.file.pixel_size[0] / entry.file.pixel_size[1],
            "start": entry.start,
            "truth": entry.has_reference,
            "note": entry.note,
            "choices": self._choices(entry),
            "acquisition": self._describe_estimate(entry),
        }

    def describe_task(self) -> str:
        """The task of the run in words."""
        task = self.config.task
        if self.ranges:
            (low, high), (weakest, strongest), _ = self.ranges
            return f"{low:g} to {high:g}-fold under-sampled MRI, noise {weakest:g} to {strongest:g}"
        noise = f", noise {task.sigma:g}" if task.sigma else ""
        return {
            "csmri": f"{task.acceleration:g}-fold under-sampled MRI{noise}",
            "denoising": f"denoising{noise}",
            "super_resolution": f"{task.factor}-fold super-resolution{noise}",
        }[task.name]

    def add(self, name: str, content: bytes, kind: str = "image", plane: str = "acquired") -> str:
        """Read a file and keep it; removes the oldest files if there are too many.

        Args:
            name: name of the file.
            content: the bytes of the file.
            kind: "image": the task of the run measures its slices. "kspace": a scanner measured them.
            plane: of the slices, as in `volumes.read`.

        Returns:
            The id of the volume.

        Raises:
            InputError: if the file cannot be read, the run's task has no k-space, or no sensitivities of the coils can be
                estimated.
        """
        self._check_kind(kind)
        volume = hashlib.sha256(f"{kind}{'' if plane == 'acquired' else plane}".encode() + content).hexdigest()[:20]
        file = volumes.read(name, content, kind=kind, plane=plane)
        self._check_kind(file.kind)  # a file that is dropped as an image may hold k-space
        entry = self._open(name, file)
        with self._lock:
            self._volumes.pop(volume, None)
            self._volumes[volume] = entry
            self._remove_oldest(newest=volume)
        return volume

    def add_series(self, files: Sequence[tuple[str, bytes]], plane: str = "acquired", *, kind: str = "image") -> list[str]:
        """Read several files of images: the files of each series become one volume with one scale.

        The two halves of a BART file count as one file; it is read as by `add` if there is no other.

        Args:
            files: name and content of each. Files that hold no image are skipped, and the note of each volume says so.
            kind: of a single file, as for `add`.
            plane: of the slices, as in `volumes.read`.

        Returns:
            The ids of the volumes, the largest first.

        Raises:
            InputError: if a file is damaged, or none holds an image.
        """
        files = bart.join_halves(files)
        if len(files) == 1:
            return [self.add(*files[0], kind, plane)]
        images = [(Path(name), content) for name, content in files if is_image(Path(name), content)]
        groups, skipped = series.group(sorted(images, key=lambda image: natural_order(image[0])), plane)
        if others := len(files) - len(images):
            skipped["no image"] = others
        if not groups:
            raise InputError(f"The {len(files)} files must hold images, but none does.")
        counts = ", ".join(f"{count} ({reason})" for reason, count in skipped.items())
        entries = []
        for joined in sorted(map(series.join, groups), key=lambda file: -file.stack.raw.size):
            name = Path(joined.path).name
            entry = self._open(name, volumes.from_stack(name, joined.stack))
            entries.append(entry._replace(note=_sentences([entry.note, f"Files skipped: {counts}" if counts else ""])))
        digest = hashlib.sha256(repr([(name, hashlib.sha256(content).digest()) for name, content in files]).encode())
        ids = [f"{digest.hexdigest()[:16]}{plane[:1]}{k}" for k in range(len(entries))]
        with self._lock:
            for volume, entry in reversed(list(zip(ids, entries, strict=True))):
                self._volumes.pop(volume, None)
                self._volumes[volume] = entry
                self._remove_oldest(newest=volume)
        return [volume for volume in ids if volume in self._volumes]

    def measure(
        self, volume: str, index: int, chosen: str | None = None, *, job: Job = NOBODY
    ) -> tuple[OpenVolume, MeasuredSlice]:
        """A volume, and one of its slices as the network gets it.

        The first call for a slice of k-space with several coils takes seconds, for the sensitivity maps.

        Args:
            volume, index: which slice.
            chosen: the acquisition, as in `find_acquisition`.
            job: learns how far the maps are, and may be dropped meanwhile.

        Raises:
            InputError: if there is no such volume or slice, or the acquisition is impossible.
            Dropped: if the job is dropped.
        """
        acquisition = self.find_acquisition(volume, chosen)
        entry = self.get(volume, index)
        sample = None
        if entry.kspace is not None and entry.kspace.kspace.shape[1] > 1:  # not inside of `measure`: others wait, too
            sample = self._coil_samples.get(volume, index, entry.kspace, job)

        def measure() -> MeasuredSlice:
            return self._measure_slice(entry, index, acquisition, sample or self._make_sample(entry, index))

        return entry, self._measured.get((volume, index, acquisition), measure)

    def find_acquisition(self, volume: str, chosen: str | None = None) -> Acquisition | None:
        """How the slices of a volume are measured; None, if the run has one acquisition.

        That of under-sampled k-space is read off the data, and so is the noise of fully sampled k-space.

        Args:
            volume: which volume.
            chosen: the acquisition that the user has chosen, as in `parse_acquisition`; None: the middle of the range.

        Raises:
            InputError: if the run has one acquisition and another is chosen, or it is none.
        """
        if self.ranges is None:
            if chosen is not None:
                raise InputError(f"This run has one acquisition, so none can be chosen, got {chosen[:80]!r}.")
            return None
        acquisition = self.ranges.middle if chosen is None else parse_acquisition(chosen, self.settings)
        entry = self.get(volume)
        if entry.estimate is None:
            return acquisition
        return acquisition._replace(sigma=entry.estimate.sigma) if entry.has_reference else entry.estimate

    def get(self, volume: str, index: int = 0) -> OpenVolume:
        """A volume; raises `InputError` if it was removed or has no slice `index`."""
        entry = self._volumes.get(volume)
        if entry is None:
            raise InputError(f"There is no volume {volume!r} any more; drop the file again.")
        if not 0 <= index < len(entry.file.slices):
            raise InputError(f"The slice must be in [0, {len(entry.file.slices) - 1}], got {index}.")
        return entry

    def _check_kind(self, kind: str) -> None:
        """Raises `InputError` for k-space, if the task of the run has none."""
        if kind == "kspace" and self.config.task.name != "csmri":
            raise InputError(f"Measured k-space means nothing to this run, whose task is {self.describe_task()}.")

    def _remove_oldest(self, *, newest: str) -> None:
        """Remove dropped files until the rest fits in `UPLOAD_CACHE_BYTES` bytes, but never the newest."""
        sizes = {volume: entry.file.slices.nbytes for volume, entry in self._volumes.items() if volume != "test"}
        for volume in [volume for volume in sizes if volume != newest]:
            if sum(sizes.values()) <= UPLOAD_CACHE_BYTES:
                break
            del self._volumes[volume], sizes[volume]
            self._coil_samples.remove(volume)
            self._measured.clear()

    def _open(self, name: str, file: volumes.Volume) -> OpenVolume:
        h, w = file.slices.shape[-2:]
        trained = self._volumes["test"].file.slices.shape[-2:]
        notes = [file.note]
        if (h, w) != trained:
            notes.append(f"The network was trained on {trained[0]} x {trained[1]} pixels, this is {h} x {w}.")
        start = _brightest_slice(file.slices)
        if file.kind == "image":
            return OpenVolume(name, _sentences(notes), file, self._get_problem((h, w), "image"), True, start)
        if file.slices.ndim == 4 and file.slices.shape[1] > 1:
            self._coil_samples.prepare()
        kspace = inspect_kspace(name, file.slices, no_truth=file.no_truth)
        file = file._replace(slices=kspace.kspace)
        problem = self._get_problem((h, w), "all of k-space" if kspace.is_full else "part of k-space")
        note = _sentences([*notes, *kspace.notes])
        estimate = estimate_acquisition(kspace.kspace) if self.ranges else None
        return OpenVolume(name, note, file, problem, kspace.is_full, start, kspace, estimate)

    def _choices(self, entry: OpenVolume) -> list[str]:
        """The fields of the acquisition that the user may choose."""
        if self.ranges is None or (entry.estimate is not None and not entry.has_reference):
            return []
        return [name for name in Acquisition._fields if name != "sigma" or entry.estimate is None]

    def _describe_estimate(self, entry: OpenVolume) -> str:
        """What was read off measured k-space, in words, and how it differs from what the network was trained for."""
        if entry.estimate is None or self.ranges is None:
            return ""
        acceleration, sigma, mask = entry.estimate
        if entry.has_reference:
            facts, acquisition = f"Noise {sigma:.2g}", self.ranges.middle._replace(sigma=sigma)
        else:
            facts, acquisition = f"{acceleration:.1f}-fold, noise {sigma:.2g}, {mask.replace('_', ' ')}", entry.estimate
        return " ".join([f"{facts}: read off the data.", *describe_excess(self.ranges, acquisition)])

    def _get_problem(self, shape: tuple[int, int], kind: str) -> Problem:
        if (shape, kind) not in self._problems:
            if kind == "image":
                problem = make_training_problem(self.settings, shape) or make_problem(self.config, shape, coils=0)
            elif kind == "all of k-space":  # under-sampled by the run's mask; no noise is added
                problem = match_network(self.config, measured(make_mask(self.config, shape)))
            else:  # nothing is taken away: J compares where the scanner measured
                problem = match_network(self.config, measured(jnp.ones(shape)))
            self._problems[shape, kind] = problem
        return self._problems[shape, kind]

    def _make_observing_problem(self, shape: tuple[int, int], is_kspace: bool, acquisition: Acquisition) -> Problem:
        """The problem that measures slices at an acquisition, for images or for fully sampled k-space.

        Each has a mask of its own, so programs that are compiled for one of them serve no other: only `observe` is used.
        """
        config = fix_acquisition(self.settings, acquisition)
        return measured(make_mask(config, shape)) if is_kspace else make_problem(config, shape, coils=0)

    def _make_sample(self, entry: OpenVolume, index: int) -> Sample:
        """The sample of a slice, which takes no time worth a job."""
        if entry is self._volumes["test"]:
            return jax.tree.map(lambda leaf: leaf[0], self._test_samples.take(np.array([index])))
        if entry.kspace is not None:
            return make_sample(entry.kspace, index)
        return Sample(entry.file.slices[index][..., None])

    def _measure_slice(
        self, entry: OpenVolume, index: int, acquisition: Acquisition | None, sample: Sample
    ) -> MeasuredSlice:
        samples = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], sample)
        problem = entry.problem
        if acquisition is not None and entry.has_reference:
            problem = self._observing_problem(samples.image.shape[1:3], entry.kspace is not None, acquisition)
        y = take(scoring.observe_samples(problem, self._noise_key, samples, jnp.asarray([index])), 0)
        return MeasuredSlice(y, entry.problem.to_net_input(y), samples.image[0] if entry.has_reference else None)


def _brightest_slice(slices: np.ndarray) -> int:
    return int(np.argmax([np.abs(image).mean() for image in slices]))


def _sentences(parts: Sequence[str]) -> str:
    return " ".join(f"{part[:1].upper()}{part[1:].rstrip('.')}." for part in parts if part)
