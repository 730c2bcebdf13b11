"""How reconstructions look over lambda, as numbers and as arrays (Fig. 6): U-Nets and HyperRecon at the same lambdas.

Kept in `TASK-look.npz` beside the runs:

    lams             (l,), those of the U-Nets
    truth, input     (h, w), of one test slice
    x_hat            (2, l, h, w), of the U-Nets and of HyperRecon
    psnr             (2, l), of that slice in dB
    input_psnr       in dB
    sharpness        (2, l), root mean square of the Laplacian inside the object over the truth's, mean over test slices
    contrast         (2, l), standard deviation inside the object over the truth's, mean over test slices
    distance         (l,), root mean square of the difference between the two, mean over test slices
    error            (l,), of U-Net less truth likewise
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
from hyperrecon_jax.physics.operators import magnitude
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.load import load_run
from hyperrecon_jax.runtime import files

MEASURED = 24  # test slices, spread over the split
OBJECT = 0.05  # intensity, above which a pixel of the truth is the object's


def look(unets: Path, hyperrecon: Path, file: Path) -> dict[str, np.ndarray]:
    """What `file` holds, made if it is not there or of other steps.

    Args:
        unets: the run of an ensemble over the only lambda.
        hyperrecon: a run of the same task.
        file: where it is kept.
    """
    steps = [run_folder.steps_reported(folder) for folder in (unets, hyperrecon)]
    if file.exists():
        with np.load(file) as kept:
            if kept["steps"].tolist() == steps:
                return dict(kept)
    x_hat, lams = [], np.zeros((0, 1), np.float32)
    for folder in (unets, hyperrecon):
        trained = load_run(folder)
        if folder is unets:
            lams = np.asarray(trained.model.members, np.float32)
        split = trained.dataset.test
        index = evenly_spaced(split.samples.size, MEASURED)
        samples = subset(split.samples, index).take(np.arange(len(index)))
        net_input = scoring.make_net_inputs(trained.problem, trained.keys.test, samples, index)
        made = scoring.reconstruct_at_lambdas(trained.model, trained.variables, net_input, lams)
        x_hat.append(np.asarray(made)[..., 0])
    truth, both = samples.image[..., 0], np.stack(x_hat)
    shown = int((truth > OBJECT).sum((-2, -1)).argmax())  # the slice that shows most
    psnr = jax.vmap(jax.vmap(metrics.psnr, (0, None)), (0, None))
    of_slice = np.asarray(psnr(jnp.asarray(both[:, :, shown, ..., None]), jnp.asarray(truth[shown, ..., None])))
    before = magnitude(net_input[shown])
    sharpness, contrast = measures(both, truth)
    found = {
        "lams": lams[:, 0],
        "truth": truth[shown],
        "input": np.asarray(before)[..., 0],
        "x_hat": both[:, :, shown],
        "psnr": of_slice,
        "input_psnr": np.asarray(metrics.psnr(before, jnp.asarray(truth[shown, ..., None]))),
        "sharpness": sharpness,
        "contrast": contrast,
        "distance": _rms(both[1] - both[0]).mean(-1),
        "error": _rms(both[0] - truth).mean(-1),
        "steps": np.array(steps),
    }
    with run_folder.explain_write_errors(file.parent), files.atomic_write(file) as partial, partial.open("wb") as opened:
        np.savez(opened, **found)
    return found


def measures(x_hat: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sharpness and contrast inside the object, relative to the truth, means over slices that show enough of it.

    Args:
        x_hat: `(..., n, h, w)`.
        truth: `(n, h, w)`.

    Returns:
        Both `(...)`; 1 is the truth's.
    """
    inside = np.stack([binary_erosion(one > OBJECT, iterations=2) for one in truth])
    enough = inside.sum((-2, -1)) > 9
    if not enough.any():  # images of noise, say
        inside, enough = np.ones(truth.shape, bool), np.ones(len(truth), bool)

    def both(images):
        edges = _laplacian(images)
        flat = [(edges[..., i, :, :][..., inside[i]], images[..., i, :, :][..., inside[i]]) for i in np.flatnonzero(enough)]
        sharp = np.stack([np.sqrt(np.square(edge).mean(-1)) for edge, _ in flat], -1)
        return sharp, np.stack([pixels.std(-1) for _, pixels in flat], -1)

    of, to = both(x_hat), both(truth)
    sharpness, contrast = ((a / np.maximum(b, 1e-9)).mean(-1) for a, b in zip(of, to, strict=True))
    return sharpness, contrast


def _laplacian(images: np.ndarray) -> np.ndarray:
    """Of each image, its border continued."""
    wide = np.pad(images, [(0, 0)] * (images.ndim - 2) + [(1, 1)] * 2, mode="edge")
    beside = wide[..., :-2, 1:-1] + wide[..., 2:, 1:-1] + wide[..., 1:-1, :-2] + wide[..., 1:-1, 2:]
    return beside - 4 * images


def _rms(difference: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(difference).mean((-2, -1)))
