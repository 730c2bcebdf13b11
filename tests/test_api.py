"""`import hyperrecon_jax as hr`: its first page is complete, and its functions do what research code needs."""

import inspect
import re
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import Net
from random_models import random_model

import hyperrecon_jax as hr

SHAPE = (16, 16)


@pytest.fixture(scope="module")
def model():
    return random_model(Net("instance"), num_terms=3, hyper_width=4)


@pytest.fixture(scope="module")
def problem():
    mask = jnp.asarray(hr.masks.make("poisson_disc", SHAPE, acceleration=2.0))
    return hr.simulated(hr.operators.csmri(mask))


def images(n):
    return jnp.asarray(np.random.default_rng(0).random((n, *SHAPE, 1), np.float32))


def test_the_first_page_has_every_public_name_and_no_other():
    names = set(re.findall(r"\bhr\.(\w+)", hr.__doc__))
    assert names == set(dir(hr))
    for name in names:
        assert inspect.getdoc(getattr(hr, name)), name


def test_importing_the_package_does_not_import_jax():
    code = "import sys, hyperrecon_jax; sys.exit('jax' in sys.modules or not callable(hyperrecon_jax.coefficients))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_gradients_in_the_image_lambda_and_the_parameters_are_finite_differences(model, problem):
    network, variables = model
    net_input = problem.to_net_input(problem.observe(jax.random.key(1), hr.Sample(images(1)[0])))
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((*SHAPE, 1), np.float32))

    def value(variables, lam, net_input):
        return jnp.sum(weights * hr.reconstruct(network, variables, lam, net_input))

    point = variables, jnp.array([0.3, 0.6]), net_input
    with jax.enable_x64(True):
        point = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), point)
        rng = np.random.default_rng(2)
        direction = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), point)
        compiled = jax.jit(jax.value_and_grad(value, (0, 1, 2)))
        _, gradient = jax.device_get(compiled(*point))
        for i, (base, change) in enumerate(zip(point, direction, strict=True)):  # one argument at a time
            step = 1e-3 if i == 1 else 1e-5  # coefficients are float32
            ahead, behind = (
                compiled(*point[:i], jax.tree.map(lambda a, b: a + by * b, base, change), *point[i + 1 :])[0]  # noqa: B023
                for by in (step, -step)
            )
            slope = sum(np.sum(g * w) for g, w in zip(jax.tree.leaves(gradient[i]), jax.tree.leaves(change), strict=True))
            np.testing.assert_allclose((ahead - behind) / (2 * step), slope, rtol=2e-2)


def test_value_and_grad_of_uhs_and_dhs_are_those_of_the_mean_loss_of_the_selected_samples(model, problem):
    network, variables = model
    objective = hr.Objective(hr.make_terms(("data_consistency", "weight_l1", "total_variation"), problem), (1.0, 0.1, 0.1))
    samples = hr.Sample(images(4))
    lam = jnp.asarray(np.random.default_rng(3).random((4, 2), np.float32))
    y = jax.jit(jax.vmap(problem.observe))(jax.random.split(jax.random.key(0), 4), samples)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def sample_loss(params, i):
        """The loss of a sample and its J, and the gradient."""
        theta = hr.generate_weights(network, params, lam[i])
        x_hat = hr.apply_main(network, theta, {}, problem.to_net_input(y[i]))
        terms = [problem.data_consistency(x_hat, y[i]), hr.losses.weight_l1(without_norm(theta)), tv(x_hat)]
        return jnp.sum(hr.coefficients(lam[i]) * jnp.array([1.0, 0.1, 0.1]) * jnp.stack(terms)), terms[0]

    def without_norm(theta):
        return {name: leaf for name, leaf in theta.items() if "norm" not in name}

    tv = hr.losses.total_variation
    values, gradients = zip(*[jax.device_get(sample_loss(variables["params"], i)) for i in range(4)], strict=True)
    values, costs = np.array(values).T
    for keep in (4, 2):
        compiled = jax.jit(partial(hr.value_and_grad, network, objective, problem, keep=keep))
        summary, gradient = compiled(variables["params"], variables["batch_stats"], lam, samples, y)
        rows = sorted(np.argsort(costs)[:keep].tolist())
        np.testing.assert_array_equal(np.flatnonzero(summary.selected), rows)
        assert summary.counts is summary.selected
        expected = jax.tree.map(lambda *leaves: sum(leaves) / keep, *[gradients[i] for i in rows])  # noqa: B023
        np.testing.assert_allclose(summary.logs["loss"], values[rows].mean(), rtol=1e-5)
        actual, expected = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(t)]) for t in (gradient, expected))
        # relative to the largest entry: a bias before a norm has no gradient
        np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def test_over_lambda(model, problem):
    """A landscape, its maximum by gradient, and two good reconstructions that differ, from the same few functions."""
    network, variables = model
    image = images(1)[0]
    net_input = problem.to_net_input(problem.observe(jax.random.key(1), hr.Sample(image)))

    @jax.jit
    def value(lam):
        return hr.metrics.psnr(hr.reconstruct(network, variables, lam, net_input), image)

    axis = np.linspace(0, 1, 4)
    values = jax.jit(lambda: hr.landscape(value, [axis, axis], at_once=3))()
    expected = [[value(jnp.array([a, b], jnp.float32)) for b in axis] for a in axis]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    lam, best = jax.jit(partial(hr.best_lambda, value))(hr.hyperparams.grid(4, 2))
    assert best >= values.max() - 1e-5
    np.testing.assert_allclose(value(lam), best, rtol=1e-6)
    reconstruct_one = partial(hr.reconstruct, network, variables)
    reconstructions = jax.jit(lambda y: hr.landscape(lambda lam: reconstruct_one(lam, y), [axis, axis]))(net_input)
    assert reconstructions.shape == (4, 4, *SHAPE, 1)
    i, j, distance = hr.diverse_pair(reconstructions.reshape(16, *SHAPE, 1), values.reshape(-1), percentile=70)
    good = np.flatnonzero(values.reshape(-1) >= np.percentile(values, 70, method="higher"))
    flat = reconstructions.reshape(16, -1)
    distances = {(a, b): np.linalg.norm(flat[a] - flat[b]) for a in good for b in good}
    assert distances[i, j] == pytest.approx(max(distances.values()), rel=1e-5)
    assert distance == pytest.approx(distances[i, j], rel=1e-5)
    with pytest.raises(hr.InputError, match="`quality` must be one number for each of the 16 images"):
        hr.diverse_pair(reconstructions.reshape(16, *SHAPE, 1), values[0])
