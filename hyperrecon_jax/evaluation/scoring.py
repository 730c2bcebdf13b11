"""Reconstructions and their scores over a set of images and a set of lambdas: curves and landscapes (Figs. 3 to 5).

The weights are generated once for each lambda, and the images are batched under them as dense convolutions. The lambdas
are spread over all devices, of all hosts. A score is computed where its reconstruction is, and nothing but scores leaves
there; each host gets all of them.
"""

import hashlib
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from hyperrecon_jax.data.dataset import Samples
from hyperrecon_jax.losses import losses, metrics
from hyperrecon_jax.losses.objective import Objective, Outcome, make_terms, term_values, weighted_loss
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import Model, apply_main, network_at
from hyperrecon_jax.physics.operators import magnitude
from hyperrecon_jax.physics.problem import Measurement, Problem
from hyperrecon_jax.physics.sample import LABELS, Sample
from hyperrecon_jax.runtime import distributed, files, memory
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.mesh import REPLICATED, SHARDED, device_mesh, gather, place

Tree = Any
Values = dict[str, np.ndarray]

FULL_REFERENCE: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "psnr": metrics.psnr,
    "ssim": metrics.ssim,
    "mae": losses.mae,
    "mse": losses.mse,
    "hfen": metrics.hfen,
}
NO_REFERENCE = ("data_consistency", "total_variation", "wavelet_l1", "weight_l1")  # J and the priors, of `make_terms`
METRICS = (*FULL_REFERENCE, "rpsnr", *NO_REFERENCE, "dice", "loss")
DICE = ("dice", *("dice_" + label.lower().replace(" ", "_") for label in LABELS))  # over all regions, and of each
REPORTED = ("psnr", "ssim", "mae", "hfen", "rpsnr", "loss")
AT_ONCE = 32  # images under one set of weights at most; more fill no device better
BLOCK = 16  # lambdas on a device in one call
SAVE_EVERY = 10.0  # seconds


class Scorer(NamedTuple):
    """A compiled scorer.

    `run(variables, samples, lams, key)`, with n samples, lambdas `(l, K-1)` and the key of the noise, gives
    `{name: (l, n)}` and, for the magnitude of the network's input, `{name: (n,)}` of those that need no weights. For Dice
    the samples need labels.
    """

    names: tuple[str, ...]
    run: Callable[[Tree, Samples, np.ndarray, jax.Array], tuple[Values, Values]]


def measure(problem: Problem, key: jax.Array, samples: Sample, index: jax.Array) -> Measurement:
    """Noisy measurements of n samples; the noise is that of `fold_in(key, index)`, however a set is chunked."""
    return jax.vmap(lambda i, sample: problem.observe(jax.random.fold_in(key, i), sample))(index, samples)


def inputs(problem: Problem, key: jax.Array, samples: Sample, index: Any) -> jax.Array:
    """What a network gets of `measure`'s measurements, `(n, h, w, 2)`."""
    return jax.jit(lambda *of: jax.vmap(problem.to_net_input)(measure(problem, *of)))(key, samples, index)


def make_scorer(
    model: Model,
    objective: Objective,
    problem: Problem,
    *,
    names: Sequence[str] = REPORTED,
    chunk: int | None = None,
    segment: Callable[[jax.Array], jax.Array] | None = None,
) -> Scorer:
    """A compiled scorer; make it once.

    Args:
        model, objective, problem: as in training.
        names: what to compute for each image, of `METRICS` and `DICE`. "rpsnr" is the gain in PSNR over the magnitude of
            the network's input, of PSNRs bounded by 100 dB; "data_consistency" is J = ||A x_hat - y||^2; "dice" is the hard
            Dice score of `segment`, the mean over the regions in either map, and "dice_cortex" that of one, NaN where it is
            in neither (Sec. V-E.1).
        chunk: images at a time; None: as many as memory has room for, and at most `AT_ONCE`.
        segment: for Dice, what the network returns for one image, such as a reconstruction `(h, w, 1)`, -> its label map,
            integers `(h, w)`.

    Raises:
        InputError: for an unknown name, or Dice without `segment`.
    """
    for name in names:
        if name not in METRICS and name not in DICE:
            raise InputError(f"A metric must be one of {', '.join(METRICS)}; got {name!r}.")
        if name in DICE and segment is None:
            raise InputError(f"`segment` must be a function where {name!r} is among the metrics, got None.")
    terms = make_terms([name for name in names if name in NO_REFERENCE], problem)
    # what a network that segments makes is no image, and so its input has no counterpart of it
    without_input = ("rpsnr", "weight_l1", "loss", *(DICE if "soft_dice" in objective.terms else ()))
    of_image = [name for name in names if name not in without_input]
    mesh = device_mesh(0)
    chunks: dict[tuple[int, ...], int] = {}  # by the images' shape: found out once, and so compiled once

    def values(wanted, outcome):
        found = {}
        for name in wanted:
            if name in terms:
                found[name] = terms[name](outcome)
            elif name in FULL_REFERENCE:
                found[name] = FULL_REFERENCE[name](outcome.x_hat, outcome.image)
        if segment is not None and any(name in DICE for name in wanted):
            regions = metrics.dice(segment(outcome.x_hat), outcome.labels, num_classes=len(LABELS))
            dice = dict(zip(DICE, (jnp.nanmean(regions), *regions), strict=True))
            found |= {name: dice[name] for name in wanted if name in DICE}
        return found

    def at_lambda(lam, theta, batch_stats, samples, y, net_input, before):
        x_hat = jax.vmap(lambda net_input: apply_main(model, theta, batch_stats, net_input))(net_input)

        def of_sample(x_hat, sample, y, before):
            outcome = Outcome(x_hat, sample, y, theta)
            found = values(names, outcome)
            if "rpsnr" in names:  # a black image can be matched exactly, and its PSNR is infinite
                found["rpsnr"] = jnp.minimum(metrics.psnr(x_hat, outcome.image), 100.0) - jnp.minimum(before, 100.0)
            if "loss" in names:
                found["loss"] = weighted_loss(objective, lam, term_values(objective, outcome))
            return found

        return jax.vmap(of_sample)(x_hat, samples, y, before)

    def local(variables, lams, key, samples, index):
        y = measure(problem, key, samples, index)
        networks = jax.vmap(partial(network_at, model, variables))(lams)
        net_input = jax.vmap(problem.to_net_input)(y)
        inputs = magnitude(net_input)
        before = metrics.psnr(inputs, samples.image)
        scores = jax.lax.map(lambda given: at_lambda(*given, samples, y, net_input, before), (lams, *networks))
        of_input = jax.vmap(lambda image, *of: values(of_image, Outcome(image, *of, {})))(inputs, samples, y)
        return scores, of_input

    spread = jax.jit(
        jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(REPLICATED, SHARDED, REPLICATED, REPLICATED, REPLICATED),
            out_specs=(SHARDED, REPLICATED),
            check_vma=False,  # as in train.make_step
        )
    )

    def run(variables, samples, lams, key):
        count = samples.size
        if not count or not len(lams):
            raise InputError(f"There must be images and lambdas to score, got {count} and {len(lams)}.")
        shape = (count, *samples.example.image.shape)
        if shape not in chunks:
            room = partial(images_at_once, model, problem, variables, samples.example, lams[0])
            chunks[shape] = chunk or min(count, distributed.broadcast_from_primary(room))
        size = chunks[shape]
        variables = place(mesh, variables)
        devices = mesh.devices.size
        padded = np.concatenate([lams, np.repeat(lams[-1:], -len(lams) % devices, 0)])
        rows = []
        for start in range(0, count, size):
            index = np.arange(start, start + size)  # the last chunk is filled up with images that are dropped again
            here = jax.tree.map(jnp.asarray, samples.take(index % count))
            rows.append(jax.device_get(gather(spread(variables, place(mesh, padded, SHARDED), key, here, index))))
        scores, of_input = zip(*rows, strict=True)
        return (
            {k: np.concatenate([row[k] for row in scores], 1)[: len(lams), :count] for k in names},
            {k: np.concatenate([row[k] for row in of_input])[:count] for k in of_image},
        )

    return Scorer(tuple(names), run)


def curve(
    score: Scorer,
    variables: Tree,
    samples: Samples,
    lams: np.ndarray,
    key: jax.Array,
    *,
    kept: Path | None = None,
    progress: bool = False,
) -> tuple[Values, Values]:
    """Scores of every image at any number of lambdas, in blocks.

    Args:
        score: from `make_scorer`.
        variables: of the model.
        samples: n of them.
        lams: `(l, K-1)`, such as `hyperparams.grid(100, 1)`.
        key: of the noise.
        kept: a file for what is done so far, so that the same call goes on after an interruption; removed at the end.
        progress: show a bar with the time to go.

    Returns:
        `{name: (l, n)}`, and for the network's input `{name: (n,)}`.
    """
    mesh = device_mesh(0)
    block = min(len(lams), BLOCK * mesh.devices.size)
    identity = digest(score.names, samples.identity, lams, jax.random.key_data(key), variables) if kept else ""
    done, scores, of_input = _resume(kept, identity)
    if distributed.broadcast_from_primary(lambda: done) != done:
        raise InputError(f"{kept} must be the same file for all hosts, on a disk that they share.")
    variables = place(mesh, variables)
    saved = time.monotonic()
    every = 0.2 if sys.stderr.isatty() else 30  # seconds: in a log file each update is a line
    shown: dict[str, Any] = {"unit": " reconstructions", "unit_scale": samples.size, "desc": "evaluating"}
    with tqdm(
        total=len(lams),
        initial=done,
        disable=not (progress and distributed.is_primary()),
        file=sys.stderr,
        mininterval=every,
        **shown,
    ) as bar:
        try:
            while done < len(lams):
                here = lams[np.minimum(np.arange(done, done + block), len(lams) - 1)]  # of one size: compiled once
                found, of_input = score.run(variables, samples, here, key)
                count = min(block, len(lams) - done)
                scores = {k: np.concatenate([*([scores[k]] if done else []), v[:count]]) for k, v in found.items()}
                done += count
                bar.update(count)
                if kept and time.monotonic() - saved > SAVE_EVERY:
                    distributed.run_on_primary(_keep, kept, identity, scores, of_input)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if kept and done:
                distributed.run_on_primary(_keep, kept, identity, scores, of_input)
            raise
    if kept:
        distributed.run_on_primary(kept.unlink, missing_ok=True)
    return scores, of_input


def landscape(
    score: Scorer, variables: Tree, samples: Samples, axes: Sequence[np.ndarray], key: jax.Array, **options: Any
) -> tuple[Values, Values]:
    """As `curve`, over the product of K-1 axes: `{name: (len(axes[0]), ..., n)}`; two of 100 values give Fig. 4."""
    scores, of_input = curve(score, variables, samples, hyperparams.product(axes), key, **options)
    shape = tuple(len(axis) for axis in axes)
    return {name: values.reshape(*shape, samples.size) for name, values in scores.items()}, of_input


def reconstructions(model: Model, variables: Tree, net_input: jax.Array, lams: np.ndarray) -> jax.Array:
    """Reconstructions of a few network inputs `(n, h, w, 2)` at each lambda, `(l, n, h, w, 1)`."""

    @jax.jit
    def at(variables, lam, net_input):
        network = network_at(model, variables, lam)
        return jax.vmap(lambda net_input: apply_main(model, *network, net_input))(net_input)

    return jnp.stack([at(variables, jnp.asarray(lam), net_input) for lam in lams])


def images_at_once(model: Model, problem: Problem, variables: Tree, one: Sample, lam: Any) -> int:
    """How many samples like `one`, which may be shapes, a quarter of the free memory has room for.

    For one image, what a backward pass would keep is taken: every activation, and so more than is alive at a time.
    """

    def forward(net_input):
        return apply_main(model, *network_at(model, variables, lam), net_input)

    net_input = jax.eval_shape(lambda key, one: problem.to_net_input(problem.observe(key, one)), jax.random.key(0), one)
    return max(1, min(AT_ONCE, memory.free_bytes() // (4 * memory.backward_bytes(forward, net_input))))


def digest(*parts: Any) -> str:
    """Tells whether two calls are about the same."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(parts):
        digest.update(leaf.encode() if isinstance(leaf, str) else np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _keep(file: Path, identity: str, scores: Values, of_input: Values) -> None:
    arrays: dict[str, Any] = {f"score_{k}": v for k, v in scores.items()} | {f"input_{k}": v for k, v in of_input.items()}
    with files.atomic_write(file) as unfinished, unfinished.open("wb") as opened:
        np.savez(opened, identity=identity, **arrays)


def _resume(file: Path | None, identity: str) -> tuple[int, Values, Values]:
    """What is done already of the call with this identity: the number of lambdas, their scores, those of the input."""
    if file is None or not file.exists():
        return 0, {}, {}
    try:
        with np.load(file) as there:
            if str(there["identity"]) != identity:
                return 0, {}, {}
            scores, of_input = (
                {name.removeprefix(kind): there[name] for name in there.files if name.startswith(kind)}
                for kind in ("score_", "input_")
            )
    except (ValueError, KeyError, zipfile.BadZipFile):  # damaged
        return 0, {}, {}
    return len(next(iter(scores.values()))), scores, of_input
