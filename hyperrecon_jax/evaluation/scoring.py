"""Metrics of reconstructions over a set of images and a set of lambdas (Figs. 3 to 5).

The weights are generated once for each lambda, and a batch of images goes through the network with them, as dense
convolutions. The lambdas are sharded over all devices of all processes. A metric is computed on the device that made the
reconstruction. Only metrics leave the device, and each process gets all of them.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.data.dataset import Samples
from hyperrecon_jax.losses.metric_table import DEFAULT_METRICS, DICE, METRICS, MetricInputs, check_name, compute_metrics
from hyperrecon_jax.losses.objective import Objective, Outcome
from hyperrecon_jax.models.model import Model, apply_main, network_at
from hyperrecon_jax.physics.net_input import NetInput, zero_filled
from hyperrecon_jax.physics.problem import Measurement, Problem, net_input_shapes
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime import distributed, memory
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.mesh import REPLICATED, SHARDED, device_mesh, gather, place

Tree = Any
Scores = dict[str, np.ndarray]
Segment = Callable[[jax.Array], jax.Array]  # what the network returns for one image -> its label map, integers (h, w)

REPORTED = (*DEFAULT_METRICS, "rpsnr", "loss")
MAX_BATCH = 32  # images that share a set of weights at most; more images fill no device better


class ScoreSettings(NamedTuple):
    """The settings of `score_batch`. All of them are fixed when it is compiled."""

    model: Model
    objective: Objective
    problem: Problem
    names: tuple[str, ...]  # metrics of the reconstructions
    input_names: tuple[str, ...]  # those of them that the zero-filled input has, too
    segment: Segment | None


class Scorer:
    """Computes metrics of every sample at every lambda. Make it once: it compiles once for each shape of the samples.

    Args:
        model: as in training.
        objective: as in training.
        problem: as in training.
        names: metrics of `metric_table.METRICS`. "rpsnr" is the gain in PSNR over the zero-filled input, and both PSNRs
            are at most 100 dB. "data_consistency" is J = ||A x_hat - y||^2. "dice" is the hard Dice score of `segment`,
            the mean over the regions that are in one of the two label maps; "dice_cortex" is that of one region, NaN
            where it is in neither map (Sec. V-E.1).
        chunk: images in one batch; none: as many as fit in memory, at most `MAX_BATCH`.
        segment: for Dice, takes what the network returns for one image, such as a reconstruction `(h, w, 1)`, and
            returns its label map, integers `(h, w)`.

    Raises:
        InputError: for an unknown name, or Dice without `segment`.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        problem: Problem,
        *,
        names: Sequence[str] = REPORTED,
        chunk: int | None = None,
        segment: Segment | None = None,
    ):
        for name in names:
            check_name(name)
            if name in DICE and segment is None:
                raise InputError(f"`segment` must be a function where {name!r} is among the metrics, got None.")
        # `segment` of a segmentation network takes its output, which is no image: the zero-filled input has no Dice score.
        no_input_score = DICE if "soft_dice" in objective.terms else ()
        input_names = [name for name in names if METRICS[name].scores_input and name not in no_input_score]
        self.names = tuple(names)
        self._settings = ScoreSettings(model, objective, problem, self.names, tuple(input_names), segment)
        self._chunk = chunk
        self._chunks: dict[tuple[int, ...], int] = {}  # by the shape of the samples, so that each compiles once
        self._mesh = device_mesh(0)
        self._score_sharded = jax.jit(
            jax.shard_map(
                partial(score_batch, self._settings),
                mesh=self._mesh,
                in_specs=(REPLICATED, SHARDED, REPLICATED, REPLICATED, REPLICATED),
                out_specs=(SHARDED, REPLICATED),
                check_vma=False,  # as in training's step
            )
        )

    def run(self, variables: Tree, samples: Samples, lams: np.ndarray, key: jax.Array) -> tuple[Scores, Scores]:
        """Score n samples at l lambdas.

        Args:
            variables: variables of the model.
            samples: n of them; with labels, for Dice.
            lams: `(l, K-1)`.
            key: random key of the noise.

        Returns:
            `{name: (l, n)}` of the reconstructions, and `{name: (n,)}` of the zero-filled input, for the metrics that
            need no weights.

        Raises:
            InputError: if there is no sample or no lambda.
        """
        count = samples.size
        if not count or not len(lams):
            raise InputError(f"There must be images and lambdas to score, got {count} and {len(lams)}.")
        size = self._batch_size(variables, samples, lams[0])
        variables = place(self._mesh, variables)
        padding = np.repeat(lams[-1:], -len(lams) % self._mesh.devices.size, 0)  # an equal number for each device
        sharded_lams = place(self._mesh, np.concatenate([lams, padding]), SHARDED)
        batches = []
        for start in range(0, count, size):
            index = np.arange(start, start + size)  # the last batch is filled up with images that are dropped below
            batch = jax.tree.map(jnp.asarray, samples.take(index % count))
            scores = self._score_sharded(variables, sharded_lams, key, batch, index)
            batches.append(jax.device_get(gather(scores)))
        scores_of, input_scores_of = zip(*batches, strict=True)
        return (
            {k: np.concatenate([scores[k] for scores in scores_of], 1)[: len(lams), :count] for k in self.names},
            {k: np.concatenate([scores[k] for scores in input_scores_of])[:count] for k in self._settings.input_names},
        )

    def _batch_size(self, variables: Tree, samples: Samples, lam: np.ndarray) -> int:
        """How many images to score at a time; the same in all processes."""
        shape = (samples.size, *samples.example.image.shape)
        if shape not in self._chunks:
            settings = self._settings
            fitting = partial(images_that_fit, settings.model, settings.problem, variables, samples.example, lam)
            self._chunks[shape] = self._chunk or min(samples.size, distributed.broadcast_from_primary(fitting))
        return self._chunks[shape]


def score_batch(
    settings: ScoreSettings, variables: Tree, lams: jax.Array, key: jax.Array, samples: Sample, index: jax.Array
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Metrics of a batch of n samples at l lambdas. Pure.

    Args:
        settings: what to compute.
        variables: variables of the model.
        lams: `(l, K-1)`.
        key: random key of the noise.
        samples: n samples.
        index: `(n,)`, indices of the samples in their split, for their noise.

    Returns:
        `{name: (l, n)}` of the reconstructions and `{name: (n,)}` of the zero-filled input.
    """
    model, problem = settings.model, settings.problem
    y = observe_samples(problem, key, samples, index)
    net_input = jax.vmap(problem.to_net_input)(y)
    x_input = zero_filled(net_input)
    networks = jax.vmap(partial(network_at, model, variables))(lams)

    def score_lambda(lam_and_network):
        lam, theta, batch_stats = lam_and_network
        x_hat = jax.vmap(partial(apply_main, model, theta, batch_stats))(net_input)
        return jax.vmap(partial(_score_image, settings, settings.names, lam, theta))(x_hat, samples, y, x_input)

    scores = jax.lax.map(score_lambda, (lams, *networks))
    score_input = partial(_score_image, settings, settings.input_names, None, {})
    return scores, jax.vmap(score_input)(x_input, samples, y, x_input)


def _score_image(
    settings: ScoreSettings,
    names: Sequence[str],
    lam: jax.Array | None,
    theta: Tree,
    x_hat: jax.Array,
    sample: Sample,
    y: Measurement,
    x_input: jax.Array,
) -> dict[str, jax.Array]:
    """Metrics of one image."""
    segment = settings.segment if any(name in DICE for name in names) else None
    labels_hat = segment(x_hat) if segment else None
    outcome = Outcome(x_hat, sample, y, theta)
    return compute_metrics(names, MetricInputs(outcome, x_input, lam, labels_hat, settings.problem, settings.objective))


def observe_samples(problem: Problem, key: jax.Array, samples: Sample, index: jax.Array) -> Measurement:
    """Noisy measurements of n samples. Sample i has the noise of `fold_in(key, index[i])`, in a batch of any size."""
    return jax.vmap(lambda i, sample: problem.observe(jax.random.fold_in(key, i), sample))(index, samples)


def make_net_inputs(problem: Problem, key: jax.Array, samples: Sample, index: Any) -> NetInput:
    """The network's inputs, with a leading axis of n images, from the measurements of `observe_samples`."""

    @jax.jit
    def observe_and_convert(key, samples, index):
        return jax.vmap(problem.to_net_input)(observe_samples(problem, key, samples, index))

    return observe_and_convert(key, samples, index)


def reconstruct_at_lambdas(model: Model, variables: Tree, net_input: NetInput, lams: np.ndarray) -> jax.Array:
    """Reconstruct n network inputs at each lambda: `(l, n, h, w, 1)`."""

    @jax.jit
    def reconstruct_batch(variables, lam, net_input):
        theta, batch_stats = network_at(model, variables, lam)
        return jax.vmap(partial(apply_main, model, theta, batch_stats))(net_input)

    return jnp.stack([reconstruct_batch(variables, jnp.asarray(lam), net_input) for lam in lams])


def images_that_fit(model: Model, problem: Problem, variables: Tree, sample: Sample, lam: Any) -> int:
    """How many samples a quarter of the free memory holds at a time, at least 1 and at most `MAX_BATCH`.

    The memory of one image is estimated by what a backward pass would keep: every activation. That is an upper bound.

    Args:
        model: as in scoring.
        problem: as in scoring.
        variables: as in scoring.
        sample: one sample, or its shapes.
        lam: any lambda `(K-1,)`.
    """

    def forward(net_input):
        return apply_main(model, *network_at(model, variables, lam), net_input)

    net_input = net_input_shapes(problem, sample)
    return max(1, min(MAX_BATCH, memory.free_bytes() // (4 * memory.backward_bytes(forward, net_input))))


def digest(*parts: Any) -> str:
    """A hash of arrays and strings in any nesting. It tells whether two calls have the same arguments."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(parts):
        sha.update(leaf.encode() if isinstance(leaf, str) else np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()
