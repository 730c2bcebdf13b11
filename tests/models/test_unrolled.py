"""The unrolled network: scale, masks of each sample, data consistency, and lambda."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrecon_jax.models.model import at_condition, init, reconstruct
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
VARIABLES = jax.jit(NET.init)(jax.random.key(0), INPUT)


def randomize(params):
    """Other values for all parameters: the initial head is zero, so that the initial U-Nets change nothing."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(tree, [a + 0.3 * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)])


PARAMS = randomize(VARIABLES["params"])
APPLY = jax.jit(lambda net_input: NET.apply({"params": PARAMS}, net_input))


def test_the_initial_network_returns_the_zero_filled_image():
    np.testing.assert_allclose(jax.jit(NET.apply)(VARIABLES, INPUT), zero_filled(INPUT), atol=1e-5)


def test_iterations_are_data_consistency_and_a_u_net():
    net, unet = Unrolled(width=3, iterations=2, normalize=False), UNet(width=3, out_channels=2, residual=False)

    @jax.jit
    def iterate(z, layer):
        u = prox(INPUT, z, weight=jnp.exp(layer["log_weight"]))
        return u + unet.apply({"params": layer["unet"]}, u)

    z = INPUT.image
    for i in range(2):
        z = iterate(z, jax.tree.map(lambda leaf, i=i: leaf[i], PARAMS["iterations"]))
    expected = operators.magnitude(z)
    np.testing.assert_allclose(jax.jit(net.apply)({"params": PARAMS}, INPUT), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e3])
def test_scale_equivariance(factor):
    scaled = physics_input(OPERATOR, factor * INPUT.y)
    np.testing.assert_allclose(APPLY(scaled) / factor, APPLY(INPUT), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_scale_equivariance_of_the_u_net(factor):
    net = UNet(width=3, normalize=True)
    variables = net.init(jax.random.key(0), INPUT.image)
    apply = jax.jit(net.apply)
    np.testing.assert_allclose(
        apply(variables, factor * INPUT.image) / factor, apply(variables, INPUT.image), rtol=1e-3, atol=1e-4
    )


def test_masks_may_differ_under_vmap():
    pair = [INPUT, physics_input(operators.csmri(MASK.T), operators.csmri(MASK.T).forward(IMAGE))]
    batch = jax.vmap(APPLY)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair))
    for i in range(2):
        np.testing.assert_allclose(batch[i], APPLY(pair[i]), rtol=1e-3, atol=1e-4)
    assert np.abs(batch[0] - batch[1]).max() > 0.01


@pytest.mark.parametrize(
    "operator",
    [
        operators.denoising(),
        operators.super_resolution(factor=2),
        operators.sense(MASK, np.full((2, SIZE, SIZE), np.sqrt(0.5), np.complex64)),
    ],
    ids=["denoising", "super-resolution", "coils"],
)
def test_other_operators(operator):
    net_input = physics_input(operator, operator.forward(jnp.asarray(IMAGE)))
    x_hat, gradient = jax.jit(jax.value_and_grad(lambda p: jnp.sum(NET.apply({"params": p}, net_input))))(PARAMS)
    assert np.isfinite(x_hat)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_weights_and_step_sizes_are_generated_from_lambda_and_conditions():
    model, variables = init(jax.random.key(0), NET, INPUT, num_terms=2, hyper_width=4, kind="low_rank", num_conditions=2)
    assert ("iterations", "log_weight") in dict(model.hyper.leaves)
    variables = {**variables, "params": randomize(variables["params"])}
    run = jax.jit(lambda lam, condition: reconstruct(model, at_condition(variables, condition), lam, INPUT))
    base = run(jnp.array([0.2]), jnp.array([0.0, 1.0]))
    assert np.abs(run(jnp.array([0.8]), jnp.array([0.0, 1.0])) - base).max() > 1e-3
    assert np.abs(run(jnp.array([0.2]), jnp.array([1.0, 1.0])) - base).max() > 1e-3


def test_remat_and_precision_reach_the_u_nets_and_not_data_consistency():
    net = Unrolled(width=3, iterations=2, remat=True, precision="bfloat16")
    program = str(jax.make_jaxpr(lambda params: net.apply({"params": params}, INPUT))(PARAMS))
    assert ":bf16[16,16,3]" in program
    assert "remat" in program  # the name of `jax.checkpoint` in a program
    assert all(":c64[16,16]" in line for line in program.splitlines() if " fft[" in line)
    plain = str(jax.make_jaxpr(lambda params: NET.apply({"params": params}, INPUT))(PARAMS))
    assert not any(word in plain for word in ("bf16", "remat"))


@pytest.mark.slow
def test_remat_changes_no_gradient_and_bfloat16_little():
    def gradient(**options):
        net = Unrolled(width=3, iterations=2, **options)
        flat = jax.jit(jax.grad(lambda params: jnp.sum(jnp.square(net.apply({"params": params}, INPUT) - IMAGE))))(PARAMS)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(flat)])

    expected = gradient()
    size = np.linalg.norm(expected)
    assert np.linalg.norm(gradient(remat=True) - expected) < 1e-4 * size
    assert 0 < np.linalg.norm(gradient(precision="bfloat16") - expected) < 0.2 * size


def test_another_input_is_refused():
    with pytest.raises(InputError, match=r"`net_input` of an unrolled network must be a PhysicsInput"):
        NET.init(jax.random.key(0), INPUT.image)
