"""How a volume differs from what a run was trained on: reasons, in words, why its results may be worse."""

from collections.abc import Sequence

import numpy as np

FOREGROUND = 0.05  # values above it count as tissue
MARGIN = 1.1  # a brightness within this factor of that of the test images counts as theirs


def describe_size(size: tuple[int, int], trained: tuple[int, int]) -> str:
    """A sentence about another size than in training; "" for the same."""
    if size == trained:
        return ""
    return f"The network was trained on {trained[0]} x {trained[1]} pixels, this is {size[0]} x {size[1]}."


def mean_brightness(images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """The mean of the tissue of each image in [0, 1]; images without tissue are left out."""
    tissues = (image[image > FOREGROUND] for image in images)
    return np.array([float(tissue.mean()) for tissue in tissues if tissue.size])


def describe_contrast(image: np.ndarray, test_brightness: np.ndarray) -> str:
    """A sentence about an image that is brighter or darker than all test images; "" if it is not.

    Args:
        image: `(h, w)` in [0, 1].
        test_brightness: of the test images, by `mean_brightness`.
    """
    brightness = mean_brightness([image])
    if not brightness.size or not test_brightness.size:
        return ""
    (mean,), low, high = brightness, test_brightness.min(), test_brightness.max()
    if low / MARGIN <= mean <= high * MARGIN:
        return ""
    word = "brighter" if mean > high else "darker"
    return (
        f"Its contrast differs: the mean of its tissue is {mean:.2f}, {word} than in all test images of the run"
        f" ({low:.2f} to {high:.2f})."
    )
