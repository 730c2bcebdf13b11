"""The compiled step of an unrolled network, for one acquisition and for a range: devices, DHS, ensembles, norms.

Small networks stand in for the U-Nets.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helper import small_networks
from jax.sharding import AxisType

from hyperrecon_jax.data.feed import batch_indices
from hyperrecon_jax.losses.objective import Objective, make_terms
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import at_condition, init, reconstruct
from hyperrecon_jax.models.unrolled import Unrolled
from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.acquisition import AcquisitionRange, sample_conditions, simulated_range
from hyperrecon_jax.physics.net_input import physics_input
from hyperrecon_jax.physics.problem import simulated, with_physics_input
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime import mesh
from hyperrecon_jax.training import step
from hyperrecon_jax.training.gradient import BatchPlan

IMAGES = np.random.default_rng(0).random((10, 16, 16, 1), np.float32)
MASK = jnp.asarray(masks.make("poisson_disc", (16, 16), acceleration=2.0))
OPERATOR = operators.csmri(MASK)
RANGES = AcquisitionRange((2.0, 4.0), (0.0, 0.1), ("equispaced_lines", "random_lines"))
ONE = with_physics_input(simulated(OPERATOR, partial(operators.complex_noise, mask=MASK, sigma=0.05)))
MANY = with_physics_input(simulated_range(RANGES, (16, 16)))
EXAMPLE = physics_input(OPERATOR, OPERATOR.forward(IMAGES[0]))


@pytest.fixture(autouse=True)
def small_iterations():
    with small_networks():
        yield


def make_setup(problem, *, keep=4, norm="instance", members=None, microbatch=None):
    hyper = {"hyper_width": 3, "num_conditions": problem.acquisitions.size if problem.acquisitions else 0}
    model, variables = init(
        jax.random.key(0),
        Unrolled(width=2, iterations=2, norm=norm),
        EXAMPLE,
        num_terms=2,
        members=members,
        **({"hyper_width": None} if members is not None else hyper),
    )
    optimizer = optax.sgd(0.1)
    setup = step.Setup(
        model,
        Objective(make_terms(("data_consistency", "total_variation"), problem), (0.1, 0.01)),
        problem,
        hyperparams.uniform,
        optimizer,
        batch=4,
        key=jax.random.key(1),
        keep=keep,
        plan=BatchPlan(microbatch=microbatch, rank_over="batch"),
    )
    return setup, step.initial_state(model, variables, optimizer)


def take_steps(setup, state, devices, *, count=2):
    devices_mesh = jax.make_mesh((devices,), (mesh.DEVICE,), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    compiled_step = step.make_step(setup, devices_mesh, resident=True)
    samples = mesh.place(devices_mesh, Sample(IMAGES))
    state, rows = step.place_state(devices_mesh, jax.tree.map(jnp.copy, state)), []  # a step reuses its state's buffers
    for _ in range(count):
        state, logs, selected_lams = compiled_step(state, samples)
        rows.append({**jax.device_get(logs), "selected_lams": np.sort(selected_lams, 0)})
    return jax.device_get(state), rows


def assert_equal(a, b):
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, (a[0].params, a[0].batch_stats, a[1]), (b[0].params, b[0].batch_stats, b[1]))


def largest_change(before, after):
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), before, after)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "options"),
    [
        pytest.param(ONE, {"norm": "batch"}, id="batch norm"),
        pytest.param(MANY, {"keep": 2}, id="range and DHS"),
    ],
)
def test_two_devices_equal_one(problem, options):
    setup, state = make_setup(problem, **options)
    before = jax.device_get(state.params)
    on_one = take_steps(setup, state, 1)
    assert_equal(on_one, take_steps(setup, state, 2))
    assert largest_change(before, on_one[0].params) > 1e-4
    assert on_one[1][0]["selected_lams"].shape == (options.get("keep", 4), 1)


@pytest.mark.slow
def test_dhs_selects_the_lowest_j_among_the_acquisitions_of_a_batch():
    """The lambdas that the step reports are those that these lines find, with keys and conditions of their own.

    Two devices rank the samples of the whole batch.
    """
    setup, state = make_setup(MANY, keep=2)
    _, (logs,) = take_steps(setup, state, 2, count=1)
    key_order, key_step = step.split_key(setup)
    key_lam, key_noise, key_condition = jax.random.split(jax.random.fold_in(key_step, 0), 3)
    x = IMAGES[batch_indices(key_order, 0, count=10, batch=4)]
    conditions = sample_conditions(key_condition, RANGES, 4)
    assert len(np.unique(conditions, axis=0)) == 4
    y = jax.vmap(MANY.observe)(jax.random.split(key_noise, 4), Sample(x), conditions)
    lam = setup.sample_lam(key_lam, (4, 1))
    variables = {"params": state.params, "batch_stats": {}}

    @jax.jit
    def misfit(lam, y, condition):
        x_hat = reconstruct(setup.model, at_condition(variables, condition), lam, MANY.to_net_input(y))
        return MANY.data_consistency(x_hat, y)

    cost = np.array([misfit(*row) for row in zip(lam, y, conditions, strict=True)])
    np.testing.assert_array_equal(logs["selected_lams"], np.sort(lam[np.argsort(cost)[:2]], 0))
    np.testing.assert_allclose(logs["data_consistency"], np.sort(cost)[:2].mean(), rtol=1e-4)


@pytest.mark.slow
def test_microbatches_change_nothing():
    (setup, state), (setup_in_parts, _) = (make_setup(MANY, keep=2, microbatch=size) for size in (4, 1))
    assert_equal(take_steps(setup, state, 1, count=1), take_steps(setup_in_parts, state, 1, count=1))


@pytest.mark.slow
def test_a_member_of_an_ensemble_becomes_what_it_becomes_alone():
    """Also for a range of acquisitions, which an ensemble learns without a condition."""
    lams = np.array([[0.0], [1.0]], np.float32)
    setup, state = make_setup(MANY, members=lams)
    states, _ = take_steps(setup, state, 2)
    single = setup._replace(model=setup.model._replace(members=()), sample_lam=partial(hyperparams.constant, lam=lams[1]))
    params = jax.tree.map(lambda leaf: leaf[1], state.params)
    expected, _ = take_steps(
        single, step.initial_state(single.model, {"params": params, "batch_stats": {}}, setup.optimizer), 1
    )
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(lambda leaf, alone: close(leaf[1], alone), states.params, expected.params)
