"""Samples of k-space of several coils, whose maps take seconds: a process aside makes them, for as long as a job waits.

Jobs that wait for the same slice share one process. It ends when the last of them is dropped, so stepping through slices
computes the one on which the user stays.
"""

import threading
import time
from collections import OrderedDict
from typing import Any

from hyperrecon_jax.data import kspace as recipe
from hyperrecon_jax.explorer.jobs import Job
from hyperrecon_jax.explorer.measurement import MeasuredKspace, check_sample
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.aside import Aside, start_server

CHECK_AGAIN_AFTER = 0.03  # seconds
PRELOAD = ("hyperrecon_jax.data.espirit_preload",)


class CoilSamples:
    """Samples by volume and slice; those that nobody asked for longest are removed first.

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int):
        self._size = size
        self._lock = threading.Lock()
        self._samples: OrderedDict[tuple[str, int], Sample] = OrderedDict()
        self._computations: dict[tuple[str, int], _Computation] = {}
        self._last_seconds: float | None = None  # that the last computation took

    def prepare(self) -> None:
        """Begin to import what the computations need, because a volume of several coils was opened."""
        start_server(PRELOAD)

    def get(self, volume: str, index: int, measured: MeasuredKspace, job: Job) -> Sample:
        """The sample of a slice, as by `make_sample`.

        Raises:
            Dropped: if the job is dropped.
            InputError: as `make_sample`.
        """
        key = volume, index
        with self._lock:
            if key in self._samples:
                self._samples.move_to_end(key)
                return self._samples[key]
            computation = self._computations.setdefault(key, _Computation(measured, index))
            computation.waiting += 1
        try:
            while not computation.is_finished():
                job.report(*computation.describe(self._last_seconds))
                time.sleep(CHECK_AGAIN_AFTER)
            return self._keep(key, computation)
        finally:
            with self._lock:
                computation.waiting -= 1
                if not computation.waiting:
                    computation.end()
                    del self._computations[key]

    def remove(self, volume: str) -> None:
        """Remove the samples of a volume."""
        with self._lock:
            for key in [key for key in self._samples if key[0] == volume]:
                del self._samples[key]

    def _keep(self, key: tuple[str, int], computation: "_Computation") -> Sample:
        sample = computation.result()
        with self._lock:
            self._samples[key] = sample
            self._last_seconds = computation.seconds()
            while len(self._samples) > self._size:
                self._samples.popitem(last=False)
        return sample


class _Computation:
    """The process that makes the image and the maps of a slice, and the jobs that wait for it."""

    def __init__(self, measured: MeasuredKspace, index: int):
        self.waiting = 0  # jobs
        self._measured, self._index = measured, index
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._process: Aside | None = None
        self._outcome: Any = None  # the sample, or the error

    def is_finished(self) -> bool:
        """Whether the outcome is known; the first call starts the process."""
        with self._lock:
            if self._outcome is None:
                if self._process is None:
                    kspace, centre = self._measured.kspace[self._index], self._measured.centre
                    self._process = Aside(recipe.make_image_and_maps, kspace, calibration=centre)
                if self._process.is_finished():
                    self._outcome = self._receive(self._process)
            return self._outcome is not None

    def _receive(self, process: Aside) -> Sample | Exception:
        try:
            return check_sample(self._measured, self._index, *process.result())
        except Exception as error:
            return error

    def result(self) -> Sample:
        """The sample, once `is_finished`."""
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def describe(self, last_seconds: float | None) -> tuple[str, float | None]:
        """What is being done, and the share of it that is done if it takes as long as the last one."""
        words = f"Coil sensitivities of slice {self._index}: {self.seconds():.0f} s"
        if last_seconds is None:
            return words, None
        return f"{words}, the last took {last_seconds:.0f} s", min(self.seconds() / last_seconds, 0.99)

    def end(self) -> None:
        """End the process if it runs."""
        with self._lock:
            if self._process is not None and self._outcome is None:
                self._process.end()
