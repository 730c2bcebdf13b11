"""The training step as JAX alone gives it: the gradient of `vmap` of the network with JAX's own convolution, on one device.

It has the library's network, losses and optimizer, and the same images and lambdas; only how samples with a kernel each are
computed is left to JAX. For a norm that couples no samples.
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
    """What `conv.conv2d` computes, by JAX's own convolution and with its gradients."""
    return lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=LAYOUT, precision=precision)[0]


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """Inside, the U-Net is traced with `dense`."""
    ours = unet.conv2d
    unet.conv2d = dense
    try:
        yield
    finally:
        unet.conv2d = ours


def step(case: str, name: str, task: Task, samples: Sample, **options: Any) -> Candidate:
    """As `networks.step`."""
    setup = task.setup

    def of_one(params, lam, sample):
        y = setup.problem.observe(setup.key, sample)  # without noise
        theta = generate_weights(setup.model, params, lam)
        x_hat, _ = train_main(setup.model, theta, {}, setup.problem.to_net_input(y), batch_axes=())
        return weighted_loss(setup.objective, lam, term_values(setup.objective, Outcome(x_hat, sample, y, theta)))

    def of_batch(params, lams, samples):
        return jnp.mean(jax.vmap(partial(of_one, params))(lams, samples))

    def naive_step(params, opt_state, lams, samples):
        loss, grad = jax.value_and_grad(of_batch)(params, lams, samples)
        updates, opt_state = setup.optimizer.update(grad, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = jax.tree.map(jnp.copy, task.variables["params"])  # a step takes the buffers of its state
    carried = [params, setup.optimizer.init(params)]
    batch = jax.device_put((setup.sample_lam(setup.key, (setup.batch, len(setup.objective.terms) - 1)), samples))
    with plain_convolutions():
        compiled = jax.jit(naive_step, donate_argnums=(0, 1)).lower(*carried, *batch).compile()

    def run():
        *carried[:], loss = compiled(*carried, *batch)
        return float(jax.block_until_ready(loss))

    return Candidate(case, name, run, networks.peak(compiled), networks.step_work(task), setup.batch, **options)
