"""The training step by plain JAX: the gradient of `vmap` of the network with JAX's own convolution, on one device.

It has the library's network, losses and optimizer, and the same images and lambdas. The only difference is that JAX decides
how to compute convolutions with a kernel for each sample. For norms that do not couple samples.
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

LAYOUT = ("NHWC", "HWIO", "NHWC")


def dense(x: jax.Array, kernel: jax.Array, *, precision: lax.Precision | None = None) -> jax.Array:
    """The same result as `conv.conv2d`, by JAX's own convolution and with its gradients."""
    return lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=LAYOUT, precision=precision)[0]


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """A context in which the U-Net is traced with `dense`."""
    original = unet.conv2d
    unet.conv2d = dense
    try:
        yield
    finally:
        unet.conv2d = original


def step(case: str, name: str, task: Task, samples: Sample, **options: Any) -> Candidate:
    """As `networks.step`, for the plain training step."""
    setup = task.setup

    def sample_loss(params, lam, sample):
        y = setup.problem.observe(setup.key, sample)  # without noise
        theta = generate_weights(setup.model, params, lam)
        x_hat, _ = train_main(setup.model, theta, {}, setup.problem.to_net_input(y), batch_axes=())
        return weighted_loss(setup.objective, lam, term_values(setup.objective, Outcome(x_hat, sample, y, theta)))

    def batch_loss(params, lams, samples):
        return jnp.mean(jax.vmap(partial(sample_loss, params))(lams, samples))

    def naive_step(params, opt_state, lams, samples):
        loss, grad = jax.value_and_grad(batch_loss)(params, lams, samples)
        updates, opt_state = setup.optimizer.update(grad, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = jax.tree.map(jnp.copy, task.variables["params"])  # a copy: a step reuses the buffers of its arguments
    opt_state = setup.optimizer.init(params)
    batch = jax.device_put((setup.sample_lam(setup.key, (setup.batch, len(setup.objective.terms) - 1)), samples))
    with plain_convolutions():
        compiled = jax.jit(naive_step, donate_argnums=(0, 1)).lower(params, opt_state, *batch).compile()

    def run():
        nonlocal params, opt_state
        params, opt_state, loss = compiled(params, opt_state, *batch)
        return float(jax.block_until_ready(loss))

    return Candidate(case, name, run, networks.peak(compiled), networks.step_work(task), setup.batch, **options)
