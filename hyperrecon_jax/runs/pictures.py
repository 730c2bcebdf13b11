"""The pictures of a run: reconstructions of test images, and the histogram of the lambdas that DHS selected."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.physics.net_input import zero_filled
from hyperrecon_jax.physics.sample import LABELS
from hyperrecon_jax.runs.experiment import Experiment
from hyperrecon_jax.runs.labels import lam_title
from hyperrecon_jax.runs.task import label_map

Tree = Any
Scores = Mapping[str, np.ndarray]
NUM_BINS = 10  # bins of the histogram, for each lambda
NUM_SLICES = 3  # test slices in the picture


def draw_test_slices(experiment: Experiment, variables: Tree, scores: Scores, input_scores: Scores, path: Path) -> None:
    """Draw some test images with their reconstructions at each reported lambda, or with their segmentation.

    Args:
        experiment: the run.
        variables: of its model.
        scores: `{name: (l, n)}`, of all test images.
        input_scores: `{name: (n,)}`, of the network's inputs.
        path: of the picture.
    """
    from hyperrecon_jax import figures  # here, because Matplotlib is slow to import

    setup, split = experiment.setup, experiment.dataset.test
    index = middle_slices(split.subjects)
    samples = split.samples.take(index)
    net_input = scoring.make_net_inputs(experiment.problem, experiment.keys.test, samples, index)
    x_hat = scoring.reconstruct_at_lambdas(setup.model, variables, net_input, experiment.lams)
    if experiment.config.task.name == "segmentation":
        figures.segmentations(
            path,
            images=samples.image[..., 0],
            truth=np.asarray(samples.label),
            predicted=np.asarray(label_map(x_hat[0])),
            names=LABELS,
            dice=scores["dice"][0, index],
        )
        return
    terms = experiment.config.loss.terms
    figures.reconstructions(
        path,
        truth=samples.image[..., 0],
        inputs=np.asarray(zero_filled(net_input))[..., 0],
        x_hat=np.asarray(x_hat)[..., 0],
        titles=[lam_title(lam, terms) for lam in experiment.lams],
        input_scores=[(input_scores["psnr"][i], input_scores["ssim"][i]) for i in index],
        scores=[[(psnr[i], ssim[i]) for i in index] for psnr, ssim in zip(scores["psnr"], scores["ssim"], strict=True)],
        heading="One network, a reconstruction for every lambda: unseen test images",
    )


def draw_lambda_histogram(experiment: Experiment, rows: list[dict[str, Any]], path: Path) -> None:
    """Save the histogram of the lambdas that DHS selected, epoch by epoch (Fig. 4), as numbers and as a picture.

    The numbers: `counts`, `(epochs, bins)` for one lambda, `(epochs, bins, bins)` for the first two of more, lambda_1
    first; `edges`, `(bins + 1,)`. An epoch is as many samples as there are training images; the last epoch may be shorter.

    Args:
        experiment: the run.
        rows: those of `dhs.jsonl`.
        path: of the `.npz` file; the pictures have the same name.
    """
    from hyperrecon_jax import figures  # here, because Matplotlib is slow to import

    num_images = experiment.dataset.train.samples.size
    epochs = np.array([(row["step"] - 1) * experiment.setup.batch // num_images for row in rows])
    lams = np.array([row["lams"] for row in rows])[..., :2]  # (steps, keep, 1 or 2)
    num_lams = lams.shape[-1]
    edges = np.linspace(0, 1, NUM_BINS + 1)
    histograms = [
        np.histogramdd(lams[epochs == epoch].reshape(-1, num_lams), bins=[edges] * num_lams)[0].astype(int)
        for epoch in range(epochs[-1] + 1)
    ]
    counts = np.stack(histograms)
    np.savez(path, counts=counts, edges=edges)
    figures.lambda_histogram(path.with_suffix(".png"), counts=counts, edges=edges)


def middle_slices(subjects: np.ndarray) -> np.ndarray:
    """Indices of up to `NUM_SLICES` images: the middle slices of different subjects.

    Args:
        subjects: `(n,)`, the subject of each image.
    """
    existing = np.unique(subjects)
    selected = existing[np.linspace(0, len(existing) - 1, min(NUM_SLICES, len(existing))).astype(int)]
    return np.array([np.flatnonzero(subjects == subject)[np.sum(subjects == subject) // 2] for subject in selected])
