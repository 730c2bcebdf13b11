"""From the images of a subject to its slices, for `fastmri` and `folder`: scaled, selected, and on the grid.

Every series has one scale, by the rules of `volumes/intensity.py`. A slice of a single value is dropped as "background
alone". At most `slices` of the others are used, evenly spaced over all series. `image_files.to_grid`: square pixels, padded
to a square, then resampled to `size`. Slices may differ in size.
"""

from collections.abc import Sequence

import numpy as np

from hyperrecon_jax.data.dataset import evenly_spaced
from hyperrecon_jax.data.sources.base import EMPTY, Settings, Slices, list_notes
from hyperrecon_jax.data.sources.image_files import to_grid
from hyperrecon_jax.data.volumes.intensity import (
    Scale,
    describe_scale,
    describe_stack,
    find_scale,
    is_ordinary,
    read_values,
    to_intensity,
)
from hyperrecon_jax.data.volumes.stack import Stack

Series = Sequence[tuple[str, Stack]]  # path and images of each file


def make_slices(subject: Sequence[Series], settings: Settings, *, flip: bool) -> Slices | None:
    """The slices of a subject; None if no slice has content.

    Args:
        subject: its series.
        settings: with `coils` 0.
        flip: flip the images along both axes.

    Raises:
        InputError: if some values, or their range, are infinite.
    """
    slices: list[tuple[str, Stack, int, Scale]] = []  # path, images, index of the slice, scale of the series
    total, notes = 0, []
    for files in subject:
        scale = find_scale(files)
        scale_notes = [] if is_ordinary(scale) else ["; ".join(describe_scale(scale))]
        for path, stack in files:
            notes.append((path, [*describe_stack(stack), *scale_notes]))
            total += len(stack.raw)
            slices += [(path, stack, k, scale) for k in range(len(stack.raw)) if np.ptp(_intensity(path, stack, k, scale))]
    if not slices:
        return None
    images = []
    for path, stack, index, scale in (slices[k] for k in evenly_spaced(len(slices), settings.slices)):
        image = _intensity(path, stack, index, scale).astype(np.float32)
        images.append(to_grid(image[None, ::-1, ::-1] if flip else image[None], stack.affine, settings.size))
    dropped = {EMPTY: total - len(slices)}
    return Slices(np.clip(np.concatenate(images), 0, 1), None, None, dropped, list_notes(notes))


def _intensity(path: str, stack: Stack, index: int, scale: Scale) -> np.ndarray:
    """A slice of a file in [0, 1]: `(h, w)` float64."""
    return to_intensity(read_values(path, stack, index), scale)
