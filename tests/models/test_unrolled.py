"""The unrolled network: scale, masks of each sample, data consistency, and lambda."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import Net, small_networks
from random_models import random_model

from hyperrecon_jax.models.model import at_condition, reconstruct
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.models.unrolled import Unrolled
from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.net_input import physics_input, zero_filled
from hyperrecon_jax.physics.proximal import prox
from hyperrecon_jax.runtime.errors import InputError

RNG = np.random.default_rng(0)
SIZE = 16
MASK = jnp.asarray(masks.make("poisson_disc", (SIZE, SIZE), acceleration=2.0))
OPERATOR = operators.csmri(MASK)
IMAGE = RNG.random((SIZE, SIZE, 1)).astype(np.float32)
INPUT = physics_input(OPERATOR, OPERATOR.forward(IMAGE))
NET = Unrolled(width=3, iterations=2)


def random_params(net, net_input):
    """Random parameters, whose head is not zero as the initial one is. Their initialization is not compiled."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(net.init, jax.random.key(0), net_input)["params"])
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [rng.normal(scale=0.3, size=leaf.shape).astype(np.float32) for leaf in leaves])


@cache
def make_network():
    params = random_params(NET, INPUT)
    return params, jax.jit(lambda net_input: NET.apply({"params": params}, net_input))


@pytest.fixture
def network():
    """Random parameters of a network whose U-Nets are small networks, and its function of the input, compiled."""
    with small_networks():
        yield make_network()


def test_the_initial_network_returns_the_zero_filled_image():
    result = jax.jit(lambda key: NET.apply(NET.init(key, INPUT), INPUT))(jax.random.key(0))
    np.testing.assert_allclose(result, zero_filled(INPUT), atol=1e-5)


def test_iterations_are_data_consistency_and_a_u_net(network):
    params, _ = network
    net, unet = Unrolled(width=3, iterations=2, normalize=False), Net("instance", out_channels=2)

    @jax.jit
    def iterate(z, layer):
        u = prox(INPUT, z, weight=jnp.exp(layer["log_weight"]))
        return u + unet.apply({"params": layer["unet"]}, u)

    z = INPUT.image
    for i in range(2):
        z = iterate(z, jax.tree.map(lambda leaf, i=i: leaf[i], params["iterations"]))
    expected = operators.magnitude(z)
    np.testing.assert_allclose(jax.jit(net.apply)({"params": params}, INPUT), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e3])
def test_scale_equivariance(network, factor):
    _, apply = network
    scaled = physics_input(OPERATOR, factor * INPUT.y)
    np.testing.assert_allclose(apply(scaled) / factor, apply(INPUT), rtol=1e-3, atol=1e-4)


def test_a_measurement_that_is_all_zero_gives_a_black_image(network):
    _, apply = network
    np.testing.assert_array_equal(apply(physics_input(OPERATOR, 0 * INPUT.y)), 0)


@pytest.mark.slow
def test_scale_equivariance_of_the_u_net():
    net = UNet(width=3, normalize=True)
    params = random_params(net, INPUT.image)
    apply = jax.jit(lambda image: net.apply({"params": params}, image))
    expected = apply(INPUT.image)
    for factor in (1e-3, 1e3):
        np.testing.assert_allclose(apply(factor * INPUT.image) / factor, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(apply(0 * INPUT.image), 0)


def test_masks_may_differ_under_vmap(network):
    _, apply = network
    pair = [INPUT, physics_input(operators.csmri(MASK.T), operators.csmri(MASK.T).forward(IMAGE))]
    batch = jax.vmap(apply)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair))
    for i in range(2):
        np.testing.assert_allclose(batch[i], apply(pair[i]), rtol=1e-3, atol=1e-4)
    assert np.abs(batch[0] - batch[1]).max() > 0.01


@pytest.mark.parametrize(
    "operator",
    [
        pytest.param(operators.denoising(), marks=pytest.mark.slow),
        pytest.param(operators.super_resolution(factor=2), marks=pytest.mark.slow),
        operators.sense(MASK, np.full((2, SIZE, SIZE), np.sqrt(0.5), np.complex64)),
    ],
    ids=["denoising", "super-resolution", "coils"],
)
def test_other_operators(network, operator):
    params, _ = network
    net_input = physics_input(operator, operator.forward(jnp.asarray(IMAGE)))
    x_hat, gradient = jax.jit(jax.value_and_grad(lambda p: jnp.sum(NET.apply({"params": p}, net_input))))(params)
    assert np.isfinite(x_hat)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.usefixtures("network")
def test_weights_and_step_sizes_are_generated_from_lambda_and_conditions():
    model, variables = random_model(NET, example=INPUT, hyper_width=4, kind="low_rank", num_conditions=2)
    assert ("iterations", "log_weight") in dict(model.hyper.leaves)
    run = jax.jit(lambda lam, condition: reconstruct(model, at_condition(variables, condition), lam, INPUT))
    base = run(jnp.array([0.2]), jnp.array([0.0, 1.0]))
    assert np.abs(run(jnp.array([0.8]), jnp.array([0.0, 1.0])) - base).max() > 1e-3
    assert np.abs(run(jnp.array([0.2]), jnp.array([1.0, 1.0])) - base).max() > 1e-3


@pytest.mark.slow
def test_the_iterations_are_written_out_in_training_alone():
    """A loop would copy all activations for the backward pass. Value and gradient are those of the loop."""
    params = random_params(NET, INPUT)

    def energy(params, **options):
        return jnp.sum(jnp.square(NET.apply({"params": params}, INPUT, **options)))

    loop, training = (jax.jit(jax.value_and_grad(partial(energy, **options))) for options in ({}, {"batch_axes": ()}))
    jaxprs = (str(program.trace(params).jaxpr) for program in (loop, training))
    assert [f"unroll={NET.iterations}\n" in jaxpr for jaxpr in jaxprs] == [False, True]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), training(params), loop(params))


@pytest.mark.slow
def test_remat_and_precision_reach_the_u_nets_and_not_data_consistency():
    net, params = Unrolled(width=3, iterations=2, remat=True, precision="bfloat16"), random_params(NET, INPUT)
    program = str(jax.make_jaxpr(lambda params: net.apply({"params": params}, INPUT))(params))
    assert ":bf16[16,16,3]" in program
    assert "remat" in program  # the name of `jax.checkpoint` in a program
    assert all(":c64[16,16]" in line for line in program.splitlines() if " fft[" in line)
    plain = str(jax.make_jaxpr(lambda params: NET.apply({"params": params}, INPUT))(params))
    assert not any(word in plain for word in ("bf16", "remat"))


@pytest.mark.slow
def test_remat_changes_no_gradient_and_bfloat16_little():
    """With weights that are no wilder than trained ones: bfloat16 rounds on each processor in another way."""
    leaves, tree = jax.tree.flatten(jax.jit(NET.init)(jax.random.key(0), INPUT)["params"])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    perturbed = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(tree, perturbed)

    def output_and_gradient(**options):
        def loss(params):
            x_hat = Unrolled(width=3, iterations=2, **options).apply({"params": params}, INPUT)
            return jnp.sum(jnp.square(x_hat - IMAGE)), x_hat

        gradient, x_hat = jax.jit(jax.grad(loss, has_aux=True))(params)
        return x_hat, np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])

    (x_hat, expected), (_, again) = output_and_gradient(), output_and_gradient(remat=True)
    assert np.linalg.norm(again - expected) < 1e-4 * np.linalg.norm(expected)
    nearby, other = output_and_gradient(precision="bfloat16")
    assert 0 < np.linalg.norm(nearby - x_hat) < 0.05 * np.linalg.norm(x_hat)
    assert np.dot(other, expected) > 0.8 * np.linalg.norm(other) * np.linalg.norm(expected)


def test_another_input_is_refused():
    with pytest.raises(InputError, match=r"`net_input` of an unrolled network must be a PhysicsInput"):
        NET.init(jax.random.key(0), INPUT.image)
