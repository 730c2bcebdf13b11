"""Run by test_step.py: steps on eight forced CPU devices against one device, and what the eight exchange."""

import os

os.environ["JAX_NUM_CPU_DEVICES"] = "8"

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helper import Net
from jax.sharding import AxisType

from hyperrecon_jax.losses.objective import Objective, make_terms
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import init
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime import mesh
from hyperrecon_jax.training import step
from hyperrecon_jax.training.gradient import BatchPlan
from tests.training.test_step import IMAGES, KINDS, PROBLEM, exchange_sizes

BATCH, STEPS = 16, 3
CASES = {
    "instance": ("instance", BATCH, BatchPlan()),
    "batch": ("batch", BATCH, BatchPlan()),
    "dhs": ("instance", 4, BatchPlan(rank_over="batch")),
    **{name: ("instance", BATCH, BatchPlan()) for name in KINDS},
}
WIDE = np.tile(IMAGES, (2, 2, 2, 1))


def train(devices, name):
    """Losses and lambdas of some steps, the final parameters, and the sizes of the compiled step's exchanges."""
    norm, keep, plan = CASES[name]
    network = UNet(width=4, norm=norm) if name not in KINDS else Net(norm, width=8)  # compiles in a tenth of the time
    model, variables = init(
        jax.random.key(0), network, jnp.zeros((32, 32, 2)), num_terms=2, hyper_width=3, **KINDS.get(name, {})
    )
    objective = Objective(make_terms(("data_consistency", "total_variation"), PROBLEM), (0.01, 0.001))
    setup = step.Setup(
        model,
        objective,
        PROBLEM,
        hyperparams.uniform,
        optax.sgd(0.1),
        batch=BATCH,
        key=jax.random.key(1),
        keep=keep,
        plan=plan,
    )
    devices_mesh = jax.make_mesh((devices,), (mesh.DEVICE,), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    state = step.place_state(devices_mesh, step.initial_state(model, variables, setup.optimizer))
    samples = mesh.place(devices_mesh, Sample(WIDE))
    compiled_step = step.make_step(setup, devices_mesh, resident=True)
    text = compiled_step.lower(state, samples).compile().as_text()
    losses, lams = [], []
    for batch in itertools.repeat(samples, STEPS):
        state, logs, selected_lams = compiled_step(state, batch)
        losses.append(float(logs["loss"]))
        lams.append(np.sort(np.asarray(selected_lams)[:, 0]))
    return losses, lams, jax.device_get(state.params), exchange_sizes(text)


def main():
    assert len(jax.devices()) == 8
    for name in CASES:
        (losses, lams, params, sizes), (expected, expected_lams, expected_params, _) = train(8, name), train(1, name)
        np.testing.assert_allclose(losses, expected, rtol=1e-4)
        np.testing.assert_array_equal(lams, expected_lams)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), params, expected_params)
        activation = 32 * 32 * 4
        assert max(sizes["all-reduce"]) < activation
        assert sizes.get("all-gather", []) == ([BATCH] if name == "dhs" else [])  # the scores that are ranked
        weights = math.prod((3, 3, 4, 4)) * BATCH  # a lot more than a sample's weights of one layer
        assert all(size < 30 * weights for size in sizes["all-to-all"])
        assert sizes.keys() <= {"all-reduce", "all-to-all", "all-gather"}
        print(name, flush=True)
    print("done")


main()
