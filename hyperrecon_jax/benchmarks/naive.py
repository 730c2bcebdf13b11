"""The training step in plain JAX: the gradient of `vmap` of the network, with JAX's own convolution, on one device.

It has the library's network, losses and optimizer, and the same images and lambdas. The only difference is that JAX decides
how to compute convolutions with a kernel for each sample. It works only for norms that do not couple samples.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from hyperrecon_jax.benchmarks import networks
from hyperrecon_jax.benchmarks.networks import Task
from hyperrecon_jax.benchmarks.timing import Candidate
from hyperrecon_jax.losses.objective import Outcome, term_values, weighted_loss
from hyperrecon_jax.models import unet
from hyperrecon_jax.models.model import generate_weights, train_main
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.training.step import Setup

Tree = Any
LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv2d(x: jax.Array, kernel: jax.Array, *, precision: lax.Precision | None = None) -> jax.Array:
    """The same result as `conv.conv2d`, by JAX's own convolution and with its gradients."""
    return lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=LAYOUT, precision=precision)[0]


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """A context in which the U-Net is traced with this module's `conv2d`."""
    original = unet.conv2d
    unet.conv2d = conv2d
    try:
        yield
    finally:
        unet.conv2d = original


def step_candidate(case: str, name: str, task: Task, samples: Sample, **options: Any) -> Candidate:
    """Like `networks.step_candidate`, for the plain training step; `options` are fields of the candidate."""
    setup = task.setup
    params = jax.tree.map(jnp.copy, task.variables["params"])  # a copy: a step reuses the buffers of its arguments
    opt_state = setup.optimizer.init(params)
    batch = jax.device_put((setup.sample_lam(setup.key, (setup.batch, len(setup.objective.terms) - 1)), samples))
    with plain_convolutions():
        step = jax.jit(partial(_train_step, setup), donate_argnums=(0, 1))
        compiled = step.lower(params, opt_state, *batch).compile()

    def run():
        nonlocal params, opt_state
        params, opt_state, loss = compiled(params, opt_state, *batch)
        return float(jax.block_until_ready(loss))

    work, peak = networks.step_work(task), networks.peak_bytes(compiled)
    return Candidate(case, name, run, peak, work, setup.batch, **options)


def _train_step(
    setup: Setup, params: Tree, opt_state: Tree, lams: jax.Array, samples: Sample
) -> tuple[Tree, Tree, jax.Array]:
    """Return the new parameters, the new state of the optimizer, and the loss before the step."""

    def batch_loss(params):
        return jnp.mean(jax.vmap(partial(_sample_loss, setup, params))(lams, samples))

    loss, grads = jax.value_and_grad(batch_loss)(params)
    updates, opt_state = setup.optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


def _sample_loss(setup: Setup, params: Tree, lam: jax.Array, sample: Sample) -> jax.Array:
    y = setup.problem.observe(setup.key, sample)  # without noise
    theta = generate_weights(setup.model, params, lam)
    x_hat, _ = train_main(setup.model, theta, {}, setup.problem.to_net_input(y), batch_axes=())
    return weighted_loss(setup.objective, lam, term_values(setup.objective, Outcome(x_hat, sample, y, theta)))
