"""Every kind of hypernetwork against its formula in NumPy: weights, initial weights, numbers of parameters."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from helper import Net, assert_trees_close
from random_models import random_model

from hyperrecon_jax.models.hypernet import KINDS, encode, fix_last_inputs
from hyperrecon_jax.models.hyperparams import coefficients
from hyperrecon_jax.models.model import (
    all_but_norms,
    count_parameters,
    generate_batch,
    generate_weights,
    init,
    merge_weights,
    only_norms,
    reconstruct,
)
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.runtime.errors import InputError

EXAMPLE = jnp.zeros((16, 16, 2))
WIDTH, RANK, TERMS = 5, 3, 3
LAM = np.array([0.3, 0.8], np.float32)
C = np.array([0.3, 0.7 * 0.8, 0.7 * 0.2])  # Eq. 10
INPUTS = {"coefficients": C, "circle": np.concatenate([np.cos(np.pi * C / 2), np.sin(np.pi * C / 2)])}


def make_model(kind, encoding="coefficients", target=None, **options):
    options = {"num_terms": TERMS, "hyper_width": WIDTH, "rank": RANK, **options}
    return init(jax.random.key(0), target or Net("instance"), EXAMPLE, kind=kind, encoding=encoding, **options)


def apply_layer(phi, name, x, *, active=False):
    out = np.array([sum(x[i] * phi[name]["kernel"][i, j] for i in range(len(x))) for j in range(len(phi[name]["bias"]))])
    out = out + phi[name]["bias"]
    return np.where(out > 0, out, 0.01 * out) if active else out


@pytest.mark.parametrize("encoding", INPUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_the_formula(kind, encoding):
    options = {"num_terms": TERMS, "hyper_width": WIDTH, "rank": RANK, "kind": kind, "encoding": encoding}
    model, variables = random_model(Net("instance"), **options)
    params = variables["params"]
    phi = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["hyper"])
    theta = flatten_dict(jax.jit(partial(generate_weights, model))(params, LAM))
    trunk = INPUTS[encoding]
    if kind != "mixture":
        for i in range(4):
            trunk = apply_layer(phi, f"hidden{i}", trunk, active=True)
    for path, shape in model.hyper.leaves:
        name = ".".join(path)
        features = trunk
        if kind == "low_rank":
            features = apply_layer(phi, f"reduced:{name}", trunk)
        if kind == "mixture":
            weights = np.exp(apply_layer(phi, f"mixing:{name}", trunk))
            features = weights / sum(weights)
        assert len(features) == (WIDTH if kind == "dense" else RANK)
        np.testing.assert_allclose(
            theta[path], apply_layer(phi, f"head:{name}", features).reshape(shape), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(("kind", "encoding"), [("dense", "coefficients"), ("low_rank", "circle"), ("mixture", "circle")])
def test_fixed_inputs_generate_the_same_weights(kind, encoding):
    condition = np.array([0.2, 0.9], np.float32)
    model, variables = make_model(kind, encoding, num_conditions=2)
    fixed, _ = make_model(kind, encoding)
    params = variables["params"] | {"hyper": fix_last_inputs(model.hyper, variables["params"]["hyper"], condition)}
    expected = generate_weights(model, variables["params"], np.concatenate([LAM, condition]))
    assert_trees_close(generate_weights(fixed, params, LAM), expected, rtol=1e-5)


def test_on_the_circle_the_norm_does_not_depend_on_lambda():
    for c in (0.0, 0.2, 1.0):
        point = encode(jnp.array([c, 1 - c]), "circle")
        np.testing.assert_allclose(jnp.sum(point**2), 2, rtol=1e-6)
    np.testing.assert_allclose(encode(jnp.array([0.0, 1.0]), "circle"), [1, 0, 0, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "generated"),
    [
        ("low_rank", all_but_norms),
        ("dense", only_norms),
        pytest.param("dense", all_but_norms, marks=pytest.mark.slow),
        pytest.param("mixture", all_but_norms, marks=pytest.mark.slow),
    ],
)
def test_the_initial_network_is_near_the_targets_own(kind, generated):
    """The biases of the heads are the target's own leaves. The part that depends on lambda is not 0, and not larger."""
    target = Net("instance", width=16)
    model, variables = make_model(kind, "circle", target, hyper_width=32, num_terms=2, generated=generated)
    main, _ = jax.random.split(jax.random.key(0))
    target_leaves = flatten_dict(jax.jit(target.init)(main, EXAMPLE)["params"])
    phi = variables["params"]["hyper"]
    generate = jax.jit(partial(generate_weights, model, variables["params"]))
    ends = [flatten_dict(generate(jnp.array([lam]))) for lam in (0.0, 1.0)]
    for path, shape in model.hyper.leaves:
        np.testing.assert_allclose(
            phi["head:" + ".".join(path)]["bias"].reshape(shape), target_leaves[path], rtol=1e-5, atol=1e-7
        )
    for path, _ in model.hyper.leaves:
        size = np.sqrt(np.mean(target_leaves[path] ** 2))
        for end in ends:
            change = np.sqrt(np.mean((end[path] - target_leaves[path]) ** 2))
            assert 0.05 * size <= change <= 1.5 * size  # 0 where the leaf is, as all biases are
        assert size == 0 or np.abs(ends[0][path] - ends[1][path]).max() > 0.01 * size


@pytest.mark.parametrize(
    ("kind", "encoding", "generated", "expected"),
    [
        # the U-Net of 149,409 has 148,513 in 30 leaves of convolutions and 896 in 28 leaves of norms
        ("dense", "circle", all_but_norms, 128 * 5 + 3 * 128 * 129 + 148_513 * 129 + 896),
        ("low_rank", "coefficients", all_but_norms, 128 * 3 + 3 * 128 * 129 + 30 * 129 * 8 + 148_513 * 9 + 896),
        ("mixture", "coefficients", all_but_norms, 30 * 3 * 8 + 148_513 * 9 + 896),
        ("dense", "coefficients", only_norms, 128 * 3 + 3 * 128 * 129 + 896 * 129 + 148_513),
    ],
)
def test_parameter_counts(kind, encoding, generated, expected):
    options = {"kind": kind, "encoding": encoding, "generated": generated, "hyper_width": 128}

    def params(key):
        return init(key, UNet(), EXAMPLE, num_terms=2, rank=8, **options)[1]["params"]

    assert count_parameters(jax.eval_shape(params, jax.random.key(0))) == expected


def test_film_shares_its_convolutions_and_acts():
    model, variables = random_model(Net("instance"), num_terms=TERMS, hyper_width=WIDTH, generated=only_norms)
    lams = jnp.array([[0.0, 0.5], [0.3, 0.8]])
    generate = jax.jit(partial(generate_weights, model))
    weights = jax.jit(partial(generate_batch, model))(variables["params"], lams)
    assert set(weights.per_sample) == {("norm", "scale"), ("norm", "bias")}
    assert {path: leaf.shape for path, leaf in weights.shared.items()}[("conv", "kernel")] == (3, 3, 2, 3)  # once
    for i, lam in enumerate(lams):
        theta = merge_weights(weights._replace(per_sample={path: leaf[i] for path, leaf in weights.per_sample.items()}))
        expected = generate(variables["params"], lam)
        assert jax.tree.structure(theta) == jax.tree.structure(expected)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), theta, expected)
    y = jnp.asarray(np.random.default_rng(0).random((16, 16, 2)), jnp.float32)
    reconstruct_one = jax.jit(partial(reconstruct, model, variables))
    a, b = (reconstruct_one(lam, y) for lam in lams)
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "sparse"}, "`kind` must be one of dense, low_rank, mixture, got 'sparse'"),
        ({"encoding": "square"}, "`encoding` must be one of coefficients, circle, got 'square'"),
        ({"rank": 0}, "`rank` must be at least 1, got 0"),
        (
            {"target": nn.Dense(2), "generated": only_norms},
            "`generated` must choose a leaf at least, got none of bias, kernel",
        ),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        make_model(**{"kind": "dense", **options})


def test_the_coefficients_are_those_of_equation_10():
    np.testing.assert_allclose(coefficients(LAM), C, rtol=1e-6)
