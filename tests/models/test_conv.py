"""The per-sample convolution against XLA's dense convolution, one sample at a time, under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from hyperrecon_jax.models import conv
from hyperrecon_jax.models.conv import conv2d
from hyperrecon_jax.runtime.errors import InputError


def plain(x, kernel):
    """XLA's own convolution of one image: the reference, and its gradients too."""
    return lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]


def random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def value_and_grads(f, x, kernel, weight):
    return jax.jit(jax.value_and_grad(lambda x, k: jnp.sum(f(x, k) * weight), argnums=(0, 1)))(x, kernel)


# name, how the convolution is mapped, axes in front of x and of the kernel and of the result
CASES = {
    "one": (lambda f: f, (), (), ()),
    "images": (lambda f: jax.vmap(f, (0, None)), (3,), (), (3,)),
    "kernels": (lambda f: jax.vmap(f, (None, 0)), (), (3,), (3,)),
    "samples": (jax.vmap, (3,), (3,), (3,)),
    "kernels x images": (lambda f: jax.vmap(jax.vmap(f, (0, None)), (None, 0)), (2,), (3,), (3, 2)),
    "images x kernels": (lambda f: jax.vmap(jax.vmap(f, (None, 0)), (0, None)), (2,), (3,), (2, 3)),
    "samples x images": (lambda f: jax.vmap(jax.vmap(f, (0, None))), (3, 2), (3,), (3, 2)),
    "members x samples": (lambda f: jax.vmap(jax.vmap(f)), (2, 3), (2, 3), (2, 3)),
    "last axis": (lambda f: jax.vmap(f, (0, 0), out_axes=-1), (3,), (3,), None),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sides", [(3, 3), (5, 3), (1, 1)])
def test_value_and_both_gradients_equal_xla(case, sides):
    mapped, x_axes, kernel_axes, out_axes = CASES[case]
    x, kernel = random(0, *x_axes, 8, 6, 2), random(1, *kernel_axes, *sides, 2, 4)
    weight = random(2, 8, 6, 4, 3) if out_axes is None else random(2, *out_axes, 8, 6, 4)
    actual = value_and_grads(mapped(conv2d), x, kernel, weight)
    reference = value_and_grads(mapped(plain), x, kernel, weight)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4), actual, reference)


def test_second_derivatives():
    x, kernel = random(0, 2, 5, 4, 2), random(1, 2, 3, 3, 2, 3)
    value = jax.jit(lambda x, k: jnp.sum(jnp.tanh(jax.vmap(conv2d)(x, k))))
    check_grads(value, (x, kernel), order=2, modes=["rev"], rtol=2e-2)


@pytest.mark.parametrize("groups", [1, 4])
def test_the_path_of_other_backends_equals_the_loop(groups):
    """A CPU never takes the path that a GPU or TPU takes, so it is held against the loop here."""
    x, kernel = random(0, groups, 2, 8, 6, 3), random(1, groups, 3, 3, 3, 5)
    g = random(2, groups, 2, 8, 6, 5)
    np.testing.assert_allclose(conv._conv_by_groups(x, kernel), conv._conv_by_loop(x, kernel), atol=1e-4)
    by_taps, by_loop = conv._correlate_by_taps(x, g, sides=(3, 3)), conv._correlate_by_loop(x, g, sides=(3, 3))
    np.testing.assert_allclose(by_taps, by_loop, rtol=1e-4, atol=1e-4)


def test_shared_kernel_is_one_dense_convolution():
    """No loop and no grouped convolution where the images share a kernel."""
    lowered = jax.jit(jax.vmap(conv2d, (0, None))).lower(random(0, 4, 8, 8, 2), random(1, 3, 3, 2, 4)).as_text()
    assert "while" not in lowered
    assert lowered.count("stablehlo.convolution") == 1


@pytest.mark.parametrize(
    ("x", "kernel", "message"),
    [
        ((8, 8, 2), (3, 3, 3, 4), r"got \(8, 8, 2\) and \(3, 3, 3, 4\)"),
        ((4, 8, 8, 2), (3, 3, 2, 4), r"got \(4, 8, 8, 2\)"),
        ((8, 8, 2), (2, 3, 2, 4), r"odd sides, got \(2, 3\)"),
    ],
)
def test_wrong_shapes_are_named(x, kernel, message):
    with pytest.raises(InputError, match=message):
        conv2d(jnp.zeros(x), jnp.zeros(kernel))
