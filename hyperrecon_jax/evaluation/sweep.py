"""Scoring many lambdas, block by block, so that an interrupted call can resume: curves and landscapes (Figs. 3 to 5)."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from hyperrecon_jax.data.dataset import Samples
from hyperrecon_jax.evaluation.scoring import Scorer, Scores, Tree, digest
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.runtime import distributed, files
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.mesh import device_mesh, place

LAMBDAS_PER_DEVICE = 16  # in one call
SAVE_EVERY = 10.0  # seconds


def score_at_lambdas(
    scorer: Scorer,
    variables: Tree,
    samples: Samples,
    lams: np.ndarray,
    key: jax.Array,
    *,
    resume_file: Path | None = None,
    progress: bool = False,
) -> tuple[Scores, Scores]:
    """Score all samples at any number of lambdas, in blocks of lambdas, and resume after an interruption.

    Args:
        scorer: computes the metrics.
        variables: variables of the model.
        samples: n of them.
        lams: `(l, K-1)`, such as `hyperparams.grid(100, 1)`.
        key: random key of the noise.
        resume_file: holds the scores so far, so that the same call can resume; removed at the end. None: no resume.
        progress: show a bar with the time left.

    Returns:
        `{name: (l, n)}` of the reconstructions and `{name: (n,)}` of the zero-filled input.

    Raises:
        InputError: if the processes do not see the same file.
    """
    mesh = device_mesh(0)
    block = min(len(lams), LAMBDAS_PER_DEVICE * mesh.devices.size)
    identity = digest(scorer.names, samples.identity, lams, jax.random.key_data(key), variables) if resume_file else ""
    done, scores, input_scores = _load_progress(resume_file, identity)
    if distributed.broadcast_from_primary(lambda: done) != done:
        raise InputError(f"{resume_file} must be the same file for all processes, on a disk that they share.")
    variables = place(mesh, variables)
    saved = time.monotonic()
    with _progress_bar(len(lams), done, samples.size, disable=not (progress and distributed.is_primary())) as bar:
        try:
            while done < len(lams):
                index = np.minimum(np.arange(done, done + block), len(lams) - 1)  # always a whole block: compiled once
                block_scores, input_scores = scorer.run(variables, samples, lams[index], key)
                count = min(block, len(lams) - done)
                scores = _append(scores, {name: values[:count] for name, values in block_scores.items()})
                done += count
                bar.update(count)
                if resume_file and time.monotonic() - saved > SAVE_EVERY:
                    distributed.run_on_primary(_save_progress, resume_file, identity, scores, input_scores)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if resume_file and done:
                distributed.run_on_primary(_save_progress, resume_file, identity, scores, input_scores)
            raise
    if resume_file:
        distributed.run_on_primary(resume_file.unlink, missing_ok=True)
    return scores, input_scores


def score_on_grid(
    scorer: Scorer, variables: Tree, samples: Samples, axes: Sequence[np.ndarray], key: jax.Array, **options: Any
) -> tuple[Scores, Scores]:
    """`score_at_lambdas` on the grid of K-1 axes: `{name: (len(axes[0]), ..., n)}`. Two axes of 100 give Fig. 4."""
    scores, input_scores = score_at_lambdas(scorer, variables, samples, hyperparams.product(axes), key, **options)
    shape = tuple(len(axis) for axis in axes)
    return {name: values.reshape(*shape, samples.size) for name, values in scores.items()}, input_scores


def _progress_bar(total: int, done: int, images: int, *, disable: bool) -> tqdm:
    return tqdm(
        total=total,
        initial=done,
        disable=disable,
        file=sys.stderr,
        mininterval=0.2 if sys.stderr.isatty() else 30,  # seconds: in a log file each update is a line
        desc="evaluating",
        unit=" reconstructions",
        unit_scale=images,
    )


def _append(scores: Scores, block: Scores) -> Scores:
    """The scores of more lambdas behind those so far."""
    return {name: np.concatenate([scores[name], rows]) if scores else rows for name, rows in block.items()}


def _save_progress(file: Path, identity: str, scores: Scores, input_scores: Scores) -> None:
    arrays: dict[str, Any] = {f"score_{name}": values for name, values in scores.items()}
    arrays |= {f"input_{name}": values for name, values in input_scores.items()}
    with files.atomic_write(file) as unfinished, unfinished.open("wb") as stream:
        np.savez(stream, identity=identity, **arrays)


def _load_progress(file: Path | None, identity: str) -> tuple[int, Scores, Scores]:
    """The saved results of an interrupted call with this identity: number of lambdas, their scores, the input's scores."""
    if file is None or not file.exists():
        return 0, {}, {}
    try:
        with np.load(file) as archive:
            if str(archive["identity"]) != identity:
                return 0, {}, {}
            scores, input_scores = (
                {name.removeprefix(kind): archive[name] for name in archive.files if name.startswith(kind)}
                for kind in ("score_", "input_")
            )
            return len(next(iter(scores.values()))), scores, input_scores
    except Exception:  # an empty, cut or damaged file raises many kinds of exceptions
        return 0, {}, {}
