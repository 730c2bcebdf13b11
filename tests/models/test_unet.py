"""The U-Net against the reference network, its parts against plain definitions."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helper import assert_trees_close, load_fixture, params_only, select_prefix, stats_only, to_nhwc, unet_tree
from random_models import random_model

from hyperrecon_jax.models.model import count_parameters
from hyperrecon_jax.models.unet import Conv, NormRelu, UNet
from hyperrecon_jax.runtime import memory
from hyperrecon_jax.runtime.errors import InputError

REFERENCE = load_fixture("unet_h8")
X, TARGET = to_nhwc(REFERENCE["input"]), to_nhwc(REFERENCE["target"])
PARAMS = unet_tree(params_only(select_prefix(REFERENCE, "state/")))
STATS = unet_tree(stats_only(select_prefix(REFERENCE, "state/")))
NET = UNet(width=8, norm="batch")
SMALL = UNet(width=4)


@cache
def small_variables():
    return {"params": random_model(SMALL)[1]["params"]["main"]}


@cache
def compile_gradient(net):
    """The loss of the images with batch norm's statistics: its value, (x_hat, new statistics), and its gradient."""

    def loss(params):
        def apply_one(x):
            return net.apply({"params": params, "batch_stats": STATS}, x, batch_axes=("b",), mutable=["batch_stats"])

        x_hat, updated = jax.vmap(apply_one, axis_name="b", out_axes=(0, None))(X)
        return jnp.mean(jnp.abs(x_hat - TARGET)), (x_hat, updated["batch_stats"])

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.mark.parametrize("sides", [(1, 1), (3, 3)])
def test_conv_equals_that_of_flax(sides):
    x = jax.random.normal(jax.random.key(0), (9, 8, 2))
    initializers = {"kernel_init": nn.initializers.normal(), "bias_init": nn.initializers.normal()}
    reference = nn.Conv(4, sides, **initializers)
    variables = reference.init(jax.random.key(1), x)
    network = Conv(4, sides)
    assert jax.tree.map(jnp.shape, network.init(jax.random.key(1), x)) == jax.tree.map(jnp.shape, variables)
    np.testing.assert_allclose(network.apply(variables, x), reference.apply(variables, x), rtol=1e-5, atol=1e-6)
    assert network.apply(variables, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    integers = np.arange(144, dtype=np.uint8).reshape(9, 8, 2)
    np.testing.assert_allclose(network.apply(variables, integers), reference.apply(variables, integers), rtol=1e-4)


def test_evaluation_equals_the_reference():
    x_hat = jax.jit(jax.vmap(lambda x: NET.apply({"params": PARAMS, "batch_stats": STATS}, x)))(X)
    np.testing.assert_allclose(x_hat, to_nhwc(REFERENCE["eval_output"]), rtol=1e-4, atol=1e-5)


def test_training_forward_loss_gradients_and_statistics_equal_the_reference():
    # One pre-activation of up2_norm0 is 3e-7 in float64: PyTorch's float32 has it on the other side of the ReLU's kink.
    params = {**PARAMS, "up2_norm0": {**PARAMS["up2_norm0"], "bias": PARAMS["up2_norm0"]["bias"] + np.float32(5e-6)}}
    (value, (x_hat, stats)), grads = compile_gradient(NET)(params)
    np.testing.assert_allclose(x_hat, to_nhwc(REFERENCE["train_output"]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(value, REFERENCE["train_l1_loss"], rtol=1e-5)
    expected_grads = unet_tree(select_prefix(REFERENCE, "grad/"))
    # batch norm subtracts the mean, so the bias of a convolution has no effect: its gradient is round-off
    for name in expected_grads:
        if "_conv" in name:
            assert np.abs(grads[name].pop("bias")).max() < 1e-6
            assert np.abs(expected_grads[name].pop("bias")).max() < 1e-6
    assert_trees_close(grads, expected_grads)
    assert_trees_close(stats, unet_tree(select_prefix(REFERENCE, "state_after/")))


@pytest.mark.parametrize(("norm", "expected"), [("batch", 149_409), ("instance", 149_409), ("none", 148_513)])
def test_parameter_counts(norm, expected):
    params = jax.eval_shape(UNet(norm=norm).init, jax.random.key(0), jnp.zeros((16, 16, 2)))["params"]
    assert count_parameters(params) == expected


def test_instance_norm_does_not_see_the_other_images():
    variables = small_variables()
    together = jax.jit(jax.vmap(lambda x: SMALL.apply(variables, x, batch_axes=("b",)), axis_name="b"))(X)
    np.testing.assert_allclose(together[1], jax.jit(SMALL.apply)(variables, X[1]), rtol=1e-4, atol=1e-5)


def test_the_gradient_of_the_norm_of_an_empty_slice_is_finite():
    params = {"scale": jnp.ones(2), "bias": jnp.zeros(2)}

    def energy(params, x):
        return jnp.sum(jnp.square(NormRelu("instance").apply({"params": params}, x, jnp.zeros(2), batch_axes=None)))

    total = jax.jit(jax.grad(energy, (0, 1)))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(total(params, jnp.zeros((16, 16, 2)))))


@pytest.mark.slow
def test_the_gradient_at_an_empty_slice_is_finite():
    grads = jax.jit(jax.grad(lambda v: jnp.sum(SMALL.apply(v, jnp.zeros((16, 16, 2))))))(small_variables())
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_residual_adds_the_magnitude():
    with_residual, without = (jax.jit(UNet(width=4, residual=r).apply)(small_variables(), X[0]) for r in (True, False))
    np.testing.assert_allclose(with_residual - without, np.hypot(X[0, ..., :1], X[0, ..., 1:]), atol=1e-5)


def test_sides_that_cannot_be_halved_are_padded_and_cropped():
    network, y = UNet(4, normalize=False), np.random.default_rng(0).random((13, 16, 2), np.float32)
    variables = {"params": random_model(network)[1]["params"]["main"]}
    apply = jax.jit(network.apply)
    expected = apply(variables, np.pad(y, [(1, 2), (0, 0), (0, 0)], "symmetric"))[1:14]
    np.testing.assert_allclose(apply(variables, y), expected, rtol=1e-5, atol=1e-6)


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"must have shape \(h, w, c\), got \(12, 16\)"):
        UNet().init(jax.random.key(0), jnp.zeros((12, 16)))
    with pytest.raises(InputError, match="`norm` must be one of batch, instance, none, got 'layer'"):
        UNet(norm="layer").init(jax.random.key(0), jnp.zeros((16, 16, 2)))


def test_rematerialisation_keeps_less():
    """What the backward pass is given by the forward pass is less; what a CPU's compiler makes of that is its affair."""
    large = jax.ShapeDtypeStruct((64, 64, 2), jnp.float32)
    sizes = [
        memory.backward_bytes(lambda p, x, net=net: net.apply({"params": p, "batch_stats": STATS}, x), PARAMS, large)
        for net in (NET, NET.clone(remat=True))
    ]
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.slow
def test_rematerialisation_changes_no_gradient():
    nets = NET, NET.clone(remat=True)
    ((_, (_, stats)), grads), ((_, (_, other_stats)), other) = (compile_gradient(net)(PARAMS) for net in nets)
    assert_trees_close(stats, other_stats)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * scale), grads, other)


def test_bfloat16_computes_near_float32():
    """Eight bits of mantissa: a result within a percent, of type float32."""
    nets = NET, NET.clone(precision="bfloat16")
    x_hat, nearby = (jax.jit(net.apply)({"params": PARAMS, "batch_stats": STATS}, X[0]) for net in nets)
    assert nearby.dtype == jnp.float32
    assert 0 < np.abs(nearby - x_hat).max() < 0.02 * np.abs(x_hat).max()


@pytest.mark.slow
def test_gradients_in_bfloat16_point_the_same_way_and_are_float32():
    nets = NET, NET.clone(precision="bfloat16")
    (_, grads), ((_, (_, other_stats)), other) = (compile_gradient(net)(PARAMS) for net in nets)
    assert {leaf.dtype for leaf in jax.tree.leaves((other, other_stats))} == {jnp.dtype("float32")}
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (grads, other))
    assert np.dot(a, b) > 0.95 * np.linalg.norm(a) * np.linalg.norm(b)


def test_precisions_ask_the_backend_for_different_products():
    """What a GPU or TPU makes of a float32 product is the program's choice, and it is written in it."""

    def written(precision):
        net = UNet(width=4, precision=precision)
        return jax.jit(net.apply).lower(small_variables(), X[0]).as_text()

    assert "HIGHEST" in written("float32")
    assert "HIGHEST" not in written("tf32")
    assert "bf16" in written("bfloat16")
    assert "bf16" not in written("tf32")


def test_an_unknown_precision_is_named():
    with pytest.raises(InputError, match="`precision` must be one of float32, tf32, bfloat16, got 'half'"):
        UNet(precision="half").init(jax.random.key(0), X[0])
