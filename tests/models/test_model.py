"""The hyper-U-Net against the reference network, its counts, and the properties that vmap must keep."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from helper import (
    Net,
    assert_trees_close,
    hyper_params,
    load_fixture,
    params_only,
    select_prefix,
    stats_only,
    to_nhwc,
    unet_tree,
)
from random_models import random_model

from hyperrecon_jax.models.model import (
    apply_main,
    count_parameters,
    generate_weights,
    init,
    reconstruct,
    train_main,
    without_norms,
)
from hyperrecon_jax.models.unet import UNet

REFERENCE = load_fixture("hyperunet_h8_d4_k2")
X, TARGET = to_nhwc(REFERENCE["input"]), to_nhwc(REFERENCE["target"])
LAM = jnp.asarray(REFERENCE["coefficients"][:, 1:])  # Eq. 9: the coefficients are (1 - lambda, lambda)
STATS = unet_tree(stats_only(select_prefix(REFERENCE, "state/unet.")))


@cache
def reference_model():
    """The model of the reference network, the shapes of the generated leaves by path, and the parameters."""
    model, _ = random_model(UNet(width=8, norm="batch"), hyper_width=4)
    shapes = dict(model.hyper.leaves)
    return model, shapes, hyper_params(params_only(select_prefix(REFERENCE, "state/")), shapes)


def test_evaluation_equals_the_reference():
    model, _, params = reference_model()
    variables = {"params": params, "batch_stats": STATS}
    x_hat = jax.jit(jax.vmap(lambda lam, y: reconstruct(model, variables, lam, y)))(LAM, X)
    expected = to_nhwc(REFERENCE["eval_output"])  # up to 6e5: nothing normalises an untrained network at evaluation
    np.testing.assert_allclose(x_hat, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


TRACES = []


class Scaled(nn.Module):
    """Multiplies its input by a weight and by the sum of its factors. With an array of factors it cannot be hashed."""

    factors: object

    @nn.compact
    def __call__(self, net_input):
        TRACES.append(net_input.shape)
        return self.param("weight", nn.initializers.ones, ()) * jnp.sum(jnp.asarray(self.factors)) * net_input[..., :1]


@pytest.mark.parametrize(("factors", "traces"), [((0.5, -2.0), 1), (np.array([0.5, -2.0]), 3)], ids=["hashed", "array"])
def test_reconstruct_is_compiled_once_where_the_network_can_be_hashed(factors, traces):
    net_inputs = np.random.default_rng(0).standard_normal((3, 4, 2, 2)).astype(np.float32)
    model, variables = init(jax.random.key(0), Scaled(factors), net_inputs[0], num_terms=2, hyper_width=3)
    lams = jnp.array([[0.0], [0.3], [1.0]])
    TRACES.clear()
    x_hats = [reconstruct(model, variables, lam, net_input) for lam, net_input in zip(lams, net_inputs, strict=True)]
    assert len(TRACES) == traces
    weights = [generate_weights(model, variables["params"], lam)["weight"] for lam in lams]
    expected = [-1.5 * weight * net_input[..., :1] for weight, net_input in zip(weights, net_inputs, strict=True)]
    np.testing.assert_allclose(x_hats, expected, rtol=1e-5)


@pytest.mark.slow
def test_training_forward_loss_gradients_and_statistics_equal_the_reference():
    model, shapes, params = reference_model()

    def loss(params):
        def reconstruct_one(lam, y):
            return train_main(model, generate_weights(model, params, lam), STATS, y, batch_axes=("b",))

        x_hat, stats = jax.vmap(reconstruct_one, axis_name="b", out_axes=(0, None))(LAM, X)
        return jnp.mean(jnp.abs(x_hat - TARGET)), (x_hat, stats)

    (value, (x_hat, stats)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(x_hat, to_nhwc(REFERENCE["train_output"]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(value, REFERENCE["train_l1_loss"], rtol=1e-5)
    expected_grads = hyper_params(select_prefix(REFERENCE, "grad/"), shapes)
    # a bias before batch norm has almost no effect: its gradient is mostly round-off
    for head, leaves in expected_grads["hyper"].items():
        if head.startswith("head:") and "_conv" in head and head.endswith(".bias"):
            for kind in leaves:
                assert np.abs(leaves[kind]).max() < 1e-4
                np.testing.assert_allclose(grads["hyper"][head][kind], leaves[kind], atol=1e-6)
                leaves[kind] = grads["hyper"][head][kind]
    assert_trees_close(grads, expected_grads)
    assert_trees_close(stats, unet_tree(select_prefix(REFERENCE, "state_after/unet.")))


class Wrapped(nn.Module):
    """Hands its options on to another network, without naming them."""

    @nn.compact
    def __call__(self, net_input, **options):
        return Net("batch", name="net")(net_input, **options)


def test_a_network_that_hands_on_its_options_trains_its_running_statistics():
    model, variables = init(jax.random.key(0), Wrapped(), X[0], num_terms=2, hyper_width=3)
    theta = generate_weights(model, variables["params"], LAM[0])
    _, stats = train_main(model, theta, variables["batch_stats"], X[0], batch_axes=())
    assert all(
        np.any(old != new) for old, new in zip(*map(jax.tree.leaves, (variables["batch_stats"], stats)), strict=True)
    )


@pytest.mark.parametrize(("width", "expected"), [(4, 743_533), (32, 4_905_089), (128, 19_208_993)])
def test_parameter_counts_of_s_m_l(width, expected):
    def params(key):
        return init(key, UNet(norm="batch"), jnp.zeros((16, 16, 2)), num_terms=2, hyper_width=width)[1]["params"]

    assert count_parameters(jax.eval_shape(params, jax.random.key(0))) == expected


def test_vmap_over_lambda_and_images_equals_a_loop():
    lams = jnp.asarray([[0.0], [0.3], [1.0]])
    model, variables = init(jax.random.key(1), Net("instance"), jnp.zeros((16, 16, 2)), num_terms=2, hyper_width=4)
    images = X[:2, :16, :16]
    reconstruct_one = jax.jit(lambda lam, y: reconstruct(model, variables, lam, y))
    mapped = jax.jit(jax.vmap(lambda lam: jax.vmap(lambda y: reconstruct(model, variables, lam, y))(images)))(lams)
    for i, lam in enumerate(lams):
        for j, y in enumerate(images):
            np.testing.assert_allclose(mapped[i, j], reconstruct_one(lam, y), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_initial_weights_depend_on_lambda_but_keep_their_size():
    model, variables = init(jax.random.key(0), UNet(), jnp.zeros((16, 16, 2)), num_terms=2, hyper_width=128)
    generate = jax.jit(lambda lam: generate_weights(model, variables["params"], lam))
    ends = [flatten_dict(generate(jnp.array([lam]))) for lam in (0.0, 1.0)]
    for path, shape in model.hyper.leaves:
        if path[-1] == "kernel" and shape[0] == 3:
            he = np.sqrt(2 / np.prod(shape[:-1]))
            for theta in ends:
                assert 0.7 * he < np.std(theta[path]) < 1.6 * he
            assert np.abs(ends[0][path] - ends[1][path]).max() > 0.1 * he


@pytest.mark.slow
def test_any_flax_module_can_be_the_target():
    target = nn.Sequential([nn.Dense(5), nn.tanh, nn.Dense(3)])
    x = jnp.arange(4.0)
    model, variables = init(
        jax.random.key(0), target, x, num_terms=3, hyper_width=6, generated=lambda path: "layers_2" in path
    )
    assert {path for path, _ in model.hyper.leaves} == {("layers_2", "kernel"), ("layers_2", "bias")}
    assert set(variables["params"]["main"]) == {"layers_0"}
    theta = generate_weights(model, variables["params"], jnp.array([0.2, 0.7]))
    expected = np.tanh(x @ theta["layers_0"]["kernel"] + theta["layers_0"]["bias"])
    expected = expected @ theta["layers_2"]["kernel"] + theta["layers_2"]["bias"]
    np.testing.assert_allclose(apply_main(model, theta, {}, x), expected, rtol=1e-5)


@pytest.mark.slow
def test_without_a_hypernetwork_the_model_is_the_unet():
    model, variables = random_model(UNet(width=4))
    x_hat = jax.jit(lambda y: reconstruct(model, variables, jnp.array([0.3]), y))(X[0])
    expected = jax.jit(UNet(width=4).apply)({"params": variables["params"]["main"]}, X[0])
    np.testing.assert_allclose(x_hat, expected, atol=1e-5)


@pytest.mark.slow
def test_differentiable_in_image_and_lambda():
    model, variables = random_model(UNet(width=4), hyper_width=4)
    blank = jnp.asarray(X[0, :16, :16]).at[:8].set(0)  # the magnitude has a kink at 0
    total = jax.jit(jax.grad(lambda lam, y: jnp.sum(reconstruct(model, variables, lam, y)), argnums=(0, 1)))
    grads = total(LAM[0], blank)
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in grads)


def test_without_norms_leaves_kernels_and_biases():
    model, _, params = reference_model()
    leaves = flatten_dict(without_norms(jax.eval_shape(lambda: generate_weights(model, params, LAM[0]))))
    assert len(leaves) == 2 * 15  # fourteen 3x3 convolutions and the head
    assert all("conv" in path[0] or path[0] == "head" for path in leaves)
