"""Reconstructions and their scores over a set of images and a set of lambdas.

The weights are generated once for each lambda, and the images are batched under them as dense convolutions.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax import losses, metrics
from hyperrecon_jax.model import Model, apply_main, generate_weights
from hyperrecon_jax.objective import Objective, Outcome, weighted_loss
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


def score(
    model: Model,
    objective: Objective,
    operator: Operator,
    observe: Observe,
    variables: Tree,
    images: np.ndarray,
    lams: np.ndarray,
    *,
    key: jax.Array,
    chunk: int = 32,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Metrics for every lambda and image, and of the input.

    Args:
        model, objective, operator, observe: as in training.
        variables: the model's.
        images: `(n, h, w, 1)` truths.
        lams: `(l, K-1)`.
        key: of the measurements' noise.
        chunk: images at a time.

    Returns:
        `{"psnr", "ssim", "mae", "hfen", "loss": (l, n)}`, and the same metrics of the input's magnitude, `(n,)`.
    """

    def of_images(x_hat, x):
        return {name: metric(x_hat, x) for name, metric in METRICS.items()}

    @jax.jit
    def prepare(x, index):
        y = measure(observe, key, x, index)
        return y, of_images(magnitude(operator.lift(y)), x)

    @jax.jit
    def reconstruct(variables, lam, x, y):
        theta = generate_weights(model, variables["params"], lam)
        x_hat = jax.vmap(lambda y: apply_main(model, theta, variables["batch_stats"], operator.lift(y)))(y)
        loss = jax.vmap(lambda x_hat, x, y: weighted_loss(objective, lam, Outcome(x_hat, x, y, theta)))(x_hat, x, y)
        return {**of_images(x_hat, x), "loss": loss}

    chunk = min(chunk, len(images))
    per_lam: list[list[dict]] = [[] for _ in lams]
    of_input = []
    for start in range(0, len(images), chunk):
        index = np.arange(start, start + chunk)  # the last chunk is filled up with images that are dropped again
        x = jnp.asarray(images[index % len(images)])
        y, scores = prepare(x, index)
        of_input.append(jax.device_get(scores))
        for rows, lam in zip(per_lam, lams, strict=True):
            rows.append(jax.device_get(reconstruct(variables, jnp.asarray(lam), x, y)))

    def join(rows):
        return {name: np.concatenate([row[name] for row in rows])[: len(images)] for name in rows[0]}

    joined = [join(rows) for rows in per_lam]
    return {name: np.stack([one[name] for one in joined]) for name in joined[0]}, join(of_input)


def reconstructions(model: Model, operator: Operator, variables: Tree, y: jax.Array, lams: np.ndarray) -> jax.Array:
    """Reconstructions of a few measurements at each lambda, `(l, n, h, w, 1)`."""

    @jax.jit
    def at(variables, lam):
        theta = generate_weights(model, variables["params"], lam)
        return jax.vmap(lambda y: apply_main(model, theta, variables["batch_stats"], operator.lift(y)))(y)

    return jnp.stack([at(variables, jnp.asarray(lam)) for lam in lams])
