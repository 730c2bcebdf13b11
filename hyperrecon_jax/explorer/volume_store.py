"""The volumes that the page can show: the test images of the run, and files that were dropped on it.

A volume has an id: "test" for the test images, else `Upload.identity`, which says of which files it is and how they are
read. It belongs to the tabs of browsers that have added it; another tab sees it only if it knows the id, from a link. Any
thread may call the functions.
"""

import contextlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax import data
from hyperrecon_jax.data import volumes
from hyperrecon_jax.data.volumes import geometry
from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.explorer.coil_samples import CoilSamples
from hyperrecon_jax.explorer.jobs import NOBODY, Job
from hyperrecon_jax.explorer.measurement import make_sample
from hyperrecon_jax.explorer.measurement_band import Noise
from hyperrecon_jax.explorer.open_volume import MeasuredSlice, OpenVolume
from hyperrecon_jax.explorer.opening import VolumeOpener, find_brightest_slice, join_sentences
from hyperrecon_jax.explorer.shared_cache import SharedCache
from hyperrecon_jax.explorer.uploads import Upload, make_upload, read_upload
from hyperrecon_jax.explorer.volume_description import describe_task, describe_volume
from hyperrecon_jax.physics.acquisition import Acquisition
from hyperrecon_jax.physics.sample import Sample, take
from hyperrecon_jax.runs.acquisitions import parse_acquisition
from hyperrecon_jax.runs.load import TrainedRun
from hyperrecon_jax.runs.task import (
    acquisition_range,
    make_training_problem,
)
from hyperrecon_jax.runtime.errors import InputError

MEASUREMENT_CACHE_SIZE = 16  # slices whose measurements stay in memory
UPLOAD_CACHE_BYTES = 2**29  # bytes of dropped files and their slices that stay in memory; the oldest are removed first


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
        task = self.config.task
        self._multiple = task.factor if task.name == "super_resolution" else 1  # of which the sides of images must be
        self._noise_key = trained.keys.test
        self._test_samples = trained.dataset.test.samples
        images = data.images(self._test_samples)
        self._opener = VolumeOpener(self.config, self.settings, images)
        file = volumes.Volume(images, "image", None, (0.0, 1.0), "")
        problem = make_training_problem(self.settings, images.shape[1:3]) or trained.problem
        self._lock = threading.RLock()
        self._volumes: OrderedDict[str, OpenVolume] = OrderedDict(
            test=OpenVolume(
                "test images", "", file, problem, True, find_brightest_slice(images), subjects=_number_subjects(trained)
            )
        )
        self._coil_samples = CoilSamples(MEASUREMENT_CACHE_SIZE)
        self._measured = SharedCache(MEASUREMENT_CACHE_SIZE)

    def describe_all(self, tab: str | None = None, linked: str = "") -> list[dict[str, Any]]:
        """`describe` of the test images and of the volumes of a tab, oldest first; None: of all tabs.

        The volume of the id `linked` is the tab's, too, from then on: it stays when the tab that added it removes it.
        """
        with self._lock:
            if tab is not None and linked in self._volumes:
                self._add_owner(linked, tab)
            return [
                self.describe(volume)
                for volume, entry in self._volumes.items()
                if tab is None or volume == "test" or tab in entry.owners
            ]

    def describe(self, volume: str) -> dict[str, Any]:
        """A volume for the page, as `describe_volume`."""
        return describe_volume(volume, self.get(volume), self.ranges)

    def describe_task(self) -> str:
        """The task of the run in words."""
        return describe_task(self.config, self.ranges)

    def add(self, name: str, content: bytes, kind: str = "image", plane: str = "acquired", *, tab: str = "") -> str:
        """`add_series` of a single file: the id of its volume."""
        return self.add_series([(name, content)], plane, kind=kind, tab=tab)[0]

    def add_series(
        self, files: Sequence[tuple[str, bytes]], plane: str = "acquired", *, kind: str = "image", tab: str = ""
    ) -> list[str]:
        """Read files and keep them; removes the oldest files if there are too many.

        Several files are images: the files of each series become one volume with one scale. The two halves of a BART file
        count as one file; it is read as a single file if there is no other.

        Args:
            files: name and content of each. Of several, files that hold no image are skipped, and the note of each volume
                says so.
            plane: of the slices, as in `volumes.read`.
            kind: of a single file. "image": the task of the run measures its slices. "kspace": a scanner measured them.
            tab: the tab to which the volumes belong.

        Returns:
            The ids of the volumes, the largest first.

        Raises:
            InputError: if a file is damaged, or none holds an image; if the run's task has no k-space, or no sensitivities
                of the coils can be estimated.
        """
        self._opener.check_kind(kind)
        return self._add_upload(make_upload(list(files), kind, plane), tab)

    def cut_again(self, volume: str, *, plane: str, frame: int = 0, tab: str = "") -> list[str]:
        """Read the files of a volume again in another plane, or another volume of its file.

        Args:
            volume: its id, also one that was open before in another plane or frame.
            plane: of the slices, as in `volumes.read`.
            frame: which volume of a file that holds several.
            tab: the tab that asks: the volumes of these files are no longer its own, the new ones are.

        Returns:
            The ids of all volumes of these files, first the one that shows what `volume` showed.

        Raises:
            InputError: if the files cannot be shown so; then nothing has changed.
        """
        entry = self.get(self._find_open(volume))
        if entry.upload is None:
            raise InputError("The test images are shown as the run has them; drop a file to choose its plane.")
        geometry.check_plane(plane)
        ids = self._add_upload(entry.upload._replace(plane=plane, frame=frame), tab)
        self._replace_volumes(entry.files, ids, tab)
        return sorted(ids, key=lambda other: self.get(other).name != entry.name)

    def _replace_volumes(self, files: str | None, ids: Sequence[str], tab: str) -> None:
        """Take all volumes of some files but those of `ids` out of a tab."""
        with self._lock:
            for volume in [volume for volume, entry in self._volumes.items() if entry.files == files]:
                if volume not in ids:
                    self.remove(volume, tab=tab)

    def restore(self, volume: str, *, tab: str = "") -> list[str]:
        """`cut_again` for the id of a volume that a link names: of another tab, or shown before in another plane or frame.

        Raises:
            InputError: if its files are not open any more.
        """
        plane, _, frame = volume.partition(".")[2].partition("-")[0].rpartition(".")
        with self._lock:
            if volume in self._volumes:
                self._add_owner(volume, tab)
                self._replace_volumes(self._volumes[volume].files, [volume], tab)
                return [volume]
        if not frame.isdecimal():
            raise InputError(f"There is no volume {volume[:80]!r} any more; drop the file again.")
        ids = self.cut_again(volume, plane=plane, frame=int(frame), tab=tab)
        return sorted(ids, key=lambda other: other != volume)

    def _find_open(self, volume: str) -> str:
        """The id of a volume; if it is not open, that of another one of the same files, if there is one."""
        with self._lock:
            same_files = (other for other in self._volumes if other.partition(".")[0] == volume.partition(".")[0])
            return volume if volume in self._volumes else next(same_files, volume)

    @contextlib.contextmanager
    def hold(self, volume: str) -> Iterator[None]:
        """A context in which a volume stays open although its tabs remove it, unless newer files need the room."""
        holder = secrets.token_hex(16)  # counts as a tab
        with self._lock:
            self._add_owner(volume, holder)
        try:
            yield
        finally:
            with self._lock:
                if volume in self._volumes:
                    self._let_go(volume, holder)

    def remove(self, volume: str, *, tab: str = "") -> None:
        """Take a volume out of a tab. It is forgotten if it is in no other; the test images stay."""
        with self._lock:
            entry = self.get(volume)
            if entry.upload is None:
                raise InputError("The test images belong to the run and cannot be removed.")
            self._let_go(volume, tab)

    def _add_owner(self, volume: str, owner: str) -> None:
        """Give an open volume to an owner, too."""
        entry = self.get(volume)
        self._volumes[volume] = entry._replace(owners=entry.owners | {owner})

    def _let_go(self, volume: str, owner: str) -> None:
        """Take an owner from a volume, and forget it if it has no other. The test images have none and stay."""
        entry = self._volumes[volume]
        owners = entry.owners - {owner}
        if owners or entry.upload is None:
            self._volumes[volume] = entry._replace(owners=owners)
        else:
            self._forget(volume)

    def _forget(self, volume: str) -> None:
        """Let go of a volume and of what was computed of it."""
        del self._volumes[volume]
        self._coil_samples.remove(volume)
        self._measured.clear()

    def _add_upload(self, upload: Upload, tab: str) -> list[str]:
        """Open the volumes of an upload for a tab; their ids."""
        opened = read_upload(upload, multiple=self._multiple)
        digest = upload.digest
        for volume in opened:
            self._opener.check_kind(volume.file.kind)  # a file that is dropped as an image may hold k-space
        entries = []
        while opened:  # each is let go before the next: the coils of k-space are compressed
            volume = opened.pop(0)
            if volume.file.slices.ndim == 4 and volume.file.slices.shape[1] > 1:
                self._coil_samples.prepare()
            entry = self._opener.open(volume.name, volume.file)
            entries.append(entry._replace(note=join_sentences([entry.note, volume.skipped]), upload=upload, files=digest))
        ids = [f"{upload.identity}{f'-{k}' if k else ''}" for k in range(len(entries))]
        with self._lock:
            for volume_id, entry in reversed(list(zip(ids, entries, strict=True))):
                previous = self._volumes.pop(volume_id, None)
                owners = frozenset({tab}) | (previous.owners if previous else frozenset())
                self._volumes[volume_id] = entry._replace(owners=owners)
                self._remove_oldest(newest=volume_id)
        return [volume_id for volume_id in ids if volume_id in self._volumes]

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

    def find_noise(self, volume: str, chosen: str | None = None) -> Noise | None:
        """The noise of the measured slices of a volume; None, if it is not known.

        `volume` and `chosen` are as in `find_acquisition`. Noise is read off measured k-space.
        """
        entry, task = self.get(volume), self.config.task
        if entry.estimate is not None:
            return Noise(entry.estimate.sigma, "complex", is_estimate=True)
        if entry.upload is None and self.config.data.coils:  # measured coils have noise of their own
            return None
        acquisition = self.find_acquisition(volume, chosen)
        if acquisition is not None:
            return Noise(acquisition.sigma, "complex")
        return Noise(float(task.sigma), "complex" if task.name == "csmri" else task.noise)

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
        for volume in [volume for volume, entry in self._volumes.items() if entry.upload and volume != newest]:
            if _num_bytes(list(self._volumes.values())) <= UPLOAD_CACHE_BYTES:
                break
            self._forget(volume)

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
            problem = self._opener.get_observing_problem(samples.image.shape[1:3], entry.kspace is not None, acquisition)
        y = take(scoring.observe_samples(problem, self._noise_key, samples, jnp.asarray([index])), 0)
        return MeasuredSlice(y, entry.problem.to_net_input(y), samples.image[0] if entry.has_reference else None)


def _num_bytes(entries: Sequence[OpenVolume]) -> int:
    """Bytes of dropped files and of their slices; files that gave several volumes count once."""
    uploads = {id(entry.upload): entry.upload.num_bytes for entry in entries if entry.upload}
    return sum(uploads.values()) + sum(entry.file.slices.nbytes for entry in entries if entry.upload)


def _number_subjects(trained: TrainedRun) -> list[int]:
    """The subject of each test image, counted from 1; an empty list if that is not known."""
    if trained.config.data.source == "arrays":  # every image counts as a subject of its own
        return []
    subjects = np.asarray(trained.dataset.test.subjects)
    order = {subject: k for k, subject in enumerate(dict.fromkeys(subjects.tolist()), 1)}
    return [order[subject] for subject in subjects.tolist()]
