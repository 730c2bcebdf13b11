"""How reconstructions look over lambda, as numbers and as images (Fig. 6): U-Nets and HyperRecon at the same lambdas.

The file `TASK-look.npz` beside the runs holds:

    lams             (l,), of the U-Nets
    truth, input     (h, w), one test slice
    x_hat            (2, l, h, w), its reconstructions by the U-Nets and by HyperRecon
    psnr             (2, l), of these reconstructions in dB
    input_psnr       of the input in dB
    sharpness        (2, l), root mean square of the Laplacian inside the object over the truth's, mean over test slices
    contrast         (2, l), standard deviation inside the object over the truth's, mean over test slices
    distance         (l,), root mean square of HyperRecon minus U-Net, mean over test slices
    error            (l,), root mean square of U-Net minus truth, mean over test slices
    steps            (2,), of the two runs
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import binary_erosion

from hyperrecon_jax.data import evenly_spaced, subset
from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.losses import metrics
from hyperrecon_jax.physics.net_input import NetInput, zero_filled
from hyperrecon_jax.physics.sample import Sample, take
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.load import TrainedRun, load_run
from hyperrecon_jax.runtime import files

NUM_SLICES = 24  # test slices to measure, evenly spaced in the split
OBJECT = 0.05  # intensity above which a pixel of the truth belongs to the object


def measure_looks(unets: Path, hyperrecon: Path, file: Path) -> dict[str, np.ndarray]:
    """Write `file`, unless it exists and is of the same training steps; returns its arrays.

    Args:
        unets: the run of an ensemble over the only lambda.
        hyperrecon: a run of the same task.
        file: path of the .npz file.
    """
    steps = [run_folder.steps_reported(folder) for folder in (unets, hyperrecon)]
    if file.exists():
        with np.load(file) as arrays:
            if arrays["steps"].tolist() == steps:
                return dict(arrays)
    arrays = _measure(unets, hyperrecon) | {"steps": np.array(steps)}
    with run_folder.explain_write_errors(file.parent), files.atomic_write(file) as partial, partial.open("wb") as stream:
        np.savez(stream, **arrays)
    return arrays


def _measure(unets: Path, hyperrecon: Path) -> dict[str, np.ndarray]:
    """The arrays of the file, without the steps."""
    ensemble = load_run(unets)
    lams = np.asarray(ensemble.model.members, np.float32)
    _, _, unets_hat = _reconstruct(ensemble, lams)
    samples, net_input, hyperrecon_hat = _reconstruct(load_run(hyperrecon), lams)
    truth, x_hat = samples.image[..., 0], np.stack([unets_hat, hyperrecon_hat])
    largest = int((truth > OBJECT).sum((-2, -1)).argmax())  # the slice that shows most of the object
    input_image = zero_filled(take(net_input, largest))
    psnr = metrics.psnr
    target = jnp.asarray(truth[largest, ..., None])
    slice_psnr = jax.vmap(jax.vmap(psnr, (0, None)), (0, None))(jnp.asarray(x_hat[:, :, largest, ..., None]), target)
    sharpness, contrast = relative_looks(x_hat, truth)
    return {
        "lams": lams[:, 0],
        "truth": truth[largest],
        "input": np.asarray(input_image)[..., 0],
        "x_hat": x_hat[:, :, largest],
        "psnr": np.asarray(slice_psnr),
        "input_psnr": np.asarray(psnr(input_image, target)),
        "sharpness": sharpness,
        "contrast": contrast,
        "distance": _rms(x_hat[1] - x_hat[0]).mean(-1),
        "error": _rms(x_hat[0] - truth).mean(-1),
    }


def _reconstruct(trained: TrainedRun, lams: np.ndarray) -> tuple[Sample, NetInput, np.ndarray]:
    """Some test slices of a run, their network inputs, and their reconstructions `(l, n, h, w)`."""
    split = trained.dataset.test.samples
    index = evenly_spaced(split.size, NUM_SLICES)
    samples = subset(split, index).take(np.arange(len(index)))
    net_input = scoring.make_net_inputs(trained.problem, trained.keys.test, samples, index)
    x_hat = scoring.reconstruct_at_lambdas(trained.model, trained.variables, net_input, lams)
    return samples, net_input, np.asarray(x_hat)[..., 0]


def relative_looks(x_hat: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sharpness and contrast inside the object, relative to the truth, means over slices that show enough of it.

    Args:
        x_hat: `(..., n, h, w)`.
        truth: `(n, h, w)`.

    Returns:
        Both `(...)`; 1 is the truth's.
    """
    inside = np.stack([binary_erosion(image > OBJECT, iterations=2) for image in truth])
    enough = inside.sum((-2, -1)) > 9
    if not enough.any():  # images of noise, for example
        inside, enough = np.ones(truth.shape, bool), np.ones(len(truth), bool)
    slices = np.flatnonzero(enough)
    pairs = zip(_looks(x_hat, inside, slices), _looks(truth, inside, slices), strict=True)
    sharpness, contrast = ((value / np.maximum(reference, 1e-9)).mean(-1) for value, reference in pairs)
    return sharpness, contrast


def _looks(images: np.ndarray, inside: np.ndarray, slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square of the Laplacian, and standard deviation, inside the object of each slice, `(..., slices)`."""
    edges = _laplacian(images)
    sharpness = [np.sqrt(np.square(edges[..., i, :, :][..., inside[i]]).mean(-1)) for i in slices]
    contrast = [images[..., i, :, :][..., inside[i]].std(-1) for i in slices]
    return np.stack(sharpness, -1), np.stack(contrast, -1)


def _laplacian(images: np.ndarray) -> np.ndarray:
    """The Laplacian of each image, its border continued."""
    padded = np.pad(images, [(0, 0)] * (images.ndim - 2) + [(1, 1)] * 2, mode="edge")
    neighbours = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return neighbours - 4 * images


def _rms(difference: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(difference).mean((-2, -1)))
