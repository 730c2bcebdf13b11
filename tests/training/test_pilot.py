"""The pilot: the magnitudes of the terms after training on data consistency only."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helper import Net

from hyperrecon_jax import losses
from hyperrecon_jax.data.feed import batch_indices
from hyperrecon_jax.losses.objective import Objective, make_terms
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import generate_weights, init, reconstruct, without_norms
from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.problem import simulated
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.errors import Diverged, InputError
from hyperrecon_jax.runtime.mesh import device_mesh, place
from hyperrecon_jax.training import pilot as module
from hyperrecon_jax.training.step import Setup, initial_state, split_key

IMAGES = np.random.default_rng(0).random((6, 16, 16, 1), np.float32)
OPERATOR = operators.csmri(jnp.asarray(masks.make("poisson_disc", (16, 16), acceleration=4.0)))
TERMS = ("weight_l1", "data_consistency", "total_variation")


def run_pilot(*, rate, steps):
    model, variables = init(jax.random.key(0), Net("instance"), jnp.zeros((16, 16, 2)), num_terms=len(TERMS), hyper_width=3)
    objective = Objective(make_terms(TERMS, simulated(OPERATOR)), (7.0,) * len(TERMS))
    setup = Setup(
        model,
        objective,
        simulated(OPERATOR),
        hyperparams.uniform,
        optax.adam(rate),
        batch=4,
        key=jax.random.key(1),
        keep=2,
    )
    mesh, state = device_mesh(4), initial_state(setup.model, variables, setup.optimizer)
    supply = itertools.repeat(place(mesh, Sample(IMAGES)))
    return setup, variables, module.pilot(setup, state, supply, mesh, steps=steps, resident=True)


@pytest.fixture(scope="module")
def without_learning():
    return run_pilot(rate=0.0, steps=8)


def test_without_learning_they_are_the_means_of_the_initial_network(without_learning):
    """The means over the last quarter of the steps and all samples, without DHS and scales, by a loop."""
    setup, variables, magnitudes = without_learning
    key_order, key_step = split_key(setup)
    reconstruct_one = jax.jit(lambda lam, y: reconstruct(setup.model, variables, lam, OPERATOR.to_net_input(y)))
    rows = []
    for step in (6, 7):
        lam = hyperparams.uniform(jax.random.split(jax.random.fold_in(key_step, step))[0], (4, 2))
        for i, image in enumerate(batch_indices(key_order, step, count=6, batch=4)):
            y = OPERATOR.forward(IMAGES[image])
            x_hat = reconstruct_one(lam[i], y)
            theta = without_norms(generate_weights(setup.model, variables["params"], lam[i]))
            dhs_score = jnp.sum(jnp.abs(OPERATOR.forward(x_hat) - y) ** 2)
            rows.append([losses.weight_l1(theta), dhs_score, losses.total_variation(x_hat)])
    expected = dict(zip(TERMS, np.mean(rows, 0), strict=True))
    assert list(magnitudes) == list(TERMS)
    for name, value in expected.items():
        np.testing.assert_allclose(magnitudes[name], value, rtol=1e-4)


@pytest.mark.slow
def test_it_learns_from_the_data_alone(without_learning):
    """J falls, and the weights, which the pilot does not penalise, keep about their size."""
    before, after = without_learning[2], run_pilot(rate=1e-3, steps=24)[2]
    assert after["data_consistency"] < 0.8 * before["data_consistency"]
    assert 0.9 < after["weight_l1"] / before["weight_l1"] < 1.1


def report_steps(monkeypatch, data_consistency):
    """Replace the step by one that reports this value; return the list of the setups that a step is made for."""
    setups, logs = [], {**dict.fromkeys(TERMS, 1.0), "data_consistency": data_consistency}

    def make_step(setup, mesh, *, resident):
        setups.append(setup)
        return lambda state, batch: (state, logs, None)

    monkeypatch.setattr(module, "make_step", make_step)
    return setups


def test_it_trains_data_consistency_alone_on_all_samples(without_learning, monkeypatch):
    setup, variables, _ = without_learning
    setups = report_steps(monkeypatch, 2.0)
    state = initial_state(setup.model, variables, setup.optimizer)
    magnitudes = module.pilot(setup, state, [Sample(IMAGES)] * 4, device_mesh(4), steps=4, resident=True)
    assert magnitudes == {"weight_l1": 1.0, "data_consistency": 2.0, "total_variation": 1.0}
    (trained,) = setups
    assert dict(zip(trained.objective.terms, trained.objective.scales, strict=True)) == {
        "weight_l1": 0.0,
        "data_consistency": 1.0,
        "total_variation": 0.0,
    }
    assert trained.keep == trained.batch


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0.0, InputError, "in the pilot data_consistency was 0"),
        (np.nan, Diverged, "data_consistency = nan: try a lower config.train.learning_rate"),
    ],
)
def test_what_has_no_magnitude_is_named(without_learning, monkeypatch, value, error, message):
    setup, variables, _ = without_learning
    report_steps(monkeypatch, value)
    state = initial_state(setup.model, variables, setup.optimizer)
    with pytest.raises(error, match=message):
        module.pilot(setup, state, [Sample(IMAGES)], device_mesh(4), steps=1, resident=True)
