"""Reconstructions and their scores over a set of images and a set of lambdas.

The weights are generated once for each lambda, and the images are batched under them as dense convolutions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax import losses, metrics
from hyperrecon_jax.model import Model, apply_main, generate_weights
from hyperrecon_jax.objective import Objective, Outcome, term_values, weighted_loss
from hyperrecon_jax.operators import Operator, magnitude

Tree = Any
Observe = Callable[[jax.Array, jax.Array], jax.Array]

METRICS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "psnr": metrics.psnr,
    "ssim": metrics.ssim,
    "mae": losses.mae,
    "hfen": metrics.hfen,
}


def measure(observe: Observe, key: jax.Array, images: jax.Array, index: jax.Array) -> jax.Array:
    """Noisy measurements `(n, ...)` of `images`; the noise is that of `fold_in(key, index)`, however a set is chunked."""
    return jax.vmap(lambda i, x: observe(jax.random.fold_in(key, i), x))(index, images)


def make_score(
    model: Model, objective: Objective, operator: Operator, observe: Observe, *, chunk: int = 32
) -> Callable[..., tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """A compiled scorer; make it once.

    Args:
        model, objective, operator, observe: as in training.
        chunk: images at a time.

    Returns:
        `score(variables, images, lams, key)` for truths `(n, h, w, 1)`, lambdas `(l, K-1)` and the key of the noise. It
        returns `{"psnr", "ssim", "mae", "hfen", "loss", "rpsnr"}`, each `(l, n)`, and the first four for the magnitude of
        the network's input, `(n,)`. "rpsnr" is the gain in PSNR over that input, of PSNRs bounded by 100 dB.
    """

    def of_images(x_hat, x):
        return {name: metric(x_hat, x) for name, metric in METRICS.items()}

    @jax.jit
    def prepare(key, x, index):
        y = measure(observe, key, x, index)
        return y, of_images(magnitude(operator.lift(y)), x)

    @jax.jit
    def at(variables, lam, x, y):
        theta, x_hat = _at_lambda(model, operator, variables, lam, y)
        values = jax.vmap(lambda x_hat, x, y: term_values(objective, Outcome(x_hat, x, y, theta)))(x_hat, x, y)
        loss = jax.vmap(partial(weighted_loss, objective, lam))(values)
        return {**of_images(x_hat, x), "loss": loss}

    def score(variables, images, lams, key):
        of_input, per_lam = [], [[] for _ in lams]
        for start in range(0, len(images), chunk):
            index = np.arange(start, start + chunk)  # the last chunk is filled up with images that are dropped again
            x = jnp.asarray(images[index % len(images)])
            y, scores = prepare(key, x, index)
            of_input.append(jax.device_get(scores))
            for rows, lam in zip(per_lam, lams, strict=True):
                rows.append(jax.device_get(at(variables, jnp.asarray(lam), x, y)))

        def join(rows):
            names = [name for name in [*METRICS, "loss"] if name in rows[0]]
            return {name: np.concatenate([row[name] for row in rows])[: len(images)] for name in names}

        joined, of_input = [join(rows) for rows in per_lam], join(of_input)
        scores = {name: np.stack([one[name] for one in joined]) for name in joined[0]}
        # a black image can be matched exactly, and its PSNR is infinite
        scores["rpsnr"] = np.minimum(scores["psnr"], 100) - np.minimum(of_input["psnr"], 100)
        return scores, of_input

    return score


def reconstructions(model: Model, operator: Operator, variables: Tree, y: jax.Array, lams: np.ndarray) -> jax.Array:
    """Reconstructions of a few measurements at each lambda, `(l, n, h, w, 1)`."""

    @jax.jit
    def at(variables, lam, y):
        return _at_lambda(model, operator, variables, lam, y)[1]

    return jnp.stack([at(variables, jnp.asarray(lam), y) for lam in lams])


def _at_lambda(model, operator, variables, lam, y):
    """The weights for one lambda, generated once, and the reconstructions `(n, h, w, 1)` of `y` under them."""
    theta = generate_weights(model, variables["params"], lam)
    return theta, jax.vmap(lambda y: apply_main(model, theta, variables["batch_stats"], operator.lift(y)))(y)
