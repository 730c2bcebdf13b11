"""Opening the volumes of files for a run: what measures their slices, and what is said of them."""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.data import volumes
from hyperrecon_jax.explorer.differences import describe_contrast, describe_size, mean_brightness
from hyperrecon_jax.explorer.measurement import inspect_kspace
from hyperrecon_jax.explorer.open_volume import OpenVolume
from hyperrecon_jax.explorer.volume_description import describe_task
from hyperrecon_jax.models.unet import side_margins
from hyperrecon_jax.physics.acquisition import Acquisition, describe_excess
from hyperrecon_jax.physics.acquisition_estimate import estimate_acquisition
from hyperrecon_jax.physics.problem import Problem, measured
from hyperrecon_jax.runs.task import (
    acquisition_range,
    fix_acquisition,
    make_mask,
    make_problem,
    make_training_problem,
    match_network,
    trained_range,
)
from hyperrecon_jax.runtime.errors import InputError

PROBLEM_CACHE_SIZE = 32  # acquisitions whose masks stay in memory
LEAST_SIDE = 11  # pixels along a side of a slice: SSIM takes no less


class VolumeOpener:
    """Opens the volumes of files.

    Args:
        config: the settings of the run, with one acquisition.
        settings: with its range of acquisitions.
        test_images: `(n, h, w)`, with which volumes are compared.
    """

    def __init__(self, config: Any, settings: Any, test_images: np.ndarray):
        self.config, self.settings = config, settings
        self._trained_size = (test_images.shape[1], test_images.shape[2])
        self._test_brightness = mean_brightness(test_images)
        self._problems: dict[tuple[Any, ...], Problem] = {}  # by shape and kind: programs are compiled for each problem
        self.get_observing_problem = functools.lru_cache(PROBLEM_CACHE_SIZE)(self._make_observing_problem)

    def check_kind(self, kind: str) -> None:
        """Raises `InputError` for k-space, if the task of the run has none."""
        if kind == "kspace" and self.config.task.name != "csmri":
            task = describe_task(self.config, acquisition_range(self.settings))
            raise InputError(f"Measured k-space means nothing to this run, whose task is {task}.")

    def open(self, name: str, file: volumes.Volume) -> OpenVolume:
        """A volume; raises `InputError` if its slices are too small, or its k-space cannot be used."""
        shape = (h, w) = file.slices.shape[-2:]
        if min(shape) < LEAST_SIDE:
            raise InputError(f"{name} must have slices of at least {LEAST_SIDE} x {LEAST_SIDE} pixels, got {h} x {w}.")
        size = describe_size(shape, self._trained_size)
        notes = [file.note, size, _describe_margins((h, w))]
        start = find_brightest_slice(file.slices)
        if file.kind == "image":
            contrast = describe_contrast(file.slices[start], self._test_brightness)
            problem = self._get_problem((h, w), "image")
            differences = tuple(filter(None, [size, contrast]))
            return OpenVolume(name, join_sentences(notes), file, problem, True, start, differences=differences)
        kspace = inspect_kspace(name, file.slices, no_truth=file.no_truth)
        file = file._replace(slices=kspace.kspace)
        problem = self._get_problem((h, w), "all of k-space" if kspace.is_full else "part of k-space")
        estimate = estimate_acquisition(kspace.kspace)
        ranges = trained_range(self.settings)
        acquisition = ranges.middle._replace(sigma=estimate.sigma) if kspace.is_full else estimate
        differences = tuple(filter(None, [size, *describe_excess(ranges, acquisition)]))
        note = join_sentences([*notes, *kspace.notes])
        return OpenVolume(name, note, file, problem, kspace.is_full, start, kspace, estimate, differences)

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


def find_brightest_slice(slices: np.ndarray) -> int:
    """The index of the slice with the largest mean."""
    return int(np.argmax([np.abs(image).mean() for image in slices]))


def _describe_margins(shape: tuple[int, int]) -> str:
    """What the network does with sides that it cannot halve three times; "" if it can."""
    padded = [side + sum(margin) for side, margin in zip(shape, side_margins(shape), strict=True)]
    if tuple(padded) == shape:
        return ""
    return f"The network mirrors its borders to {padded[0]} x {padded[1]} pixels and cuts them off again"


def join_sentences(parts: Sequence[str]) -> str:
    """Each part as a sentence, one after the other; empty ones are left out."""
    return " ".join(f"{part[:1].upper()}{part[1:].rstrip('.')}." for part in parts if part)
