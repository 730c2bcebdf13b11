"""Compare the kernels for GPUs with the loop of dense convolutions in Pallas's interpreter, and lower them for CUDA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrecon_jax.benchmarks import conv_pallas
from hyperrecon_jax.benchmarks.conv_pallas import Tiling
from hyperrecon_jax.models import conv
from hyperrecon_jax.runtime.errors import InputError

GROUPS = 2
SMALL = Tiling(columns=16, rows=4)  # several programs in every direction, none of the sizes below a multiple
# images, (h, w), (c_in, c_out), size of the kernel, type
CASES = [
    pytest.param((1, (9, 20), (2, 32), (3, 3), jnp.float32), marks=pytest.mark.slow),
    pytest.param((2, (7, 18), (32, 32), (3, 3), jnp.bfloat16), marks=pytest.mark.slow),
    pytest.param((2, (6, 16), (64, 32), (5, 3), jnp.float32), marks=pytest.mark.slow),
    pytest.param((1, (5, 35), (32, 64), (3, 5), jnp.bfloat16), marks=pytest.mark.slow),
    (1, (3, 4), (5, 3), (3, 3), jnp.float32),
]


def random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def arrays(n, size, channels, sides, dtype):
    """An image, a kernel, and a cotangent of the result."""
    kernel = random(1, GROUPS, *sides, *channels) / np.sqrt(sides[0] * sides[1] * channels[0])
    return (
        random(0, GROUPS, n, *size, channels[0]).astype(dtype),
        kernel,
        random(2, GROUPS, n, *size, channels[1]).astype(dtype),
    )


def assert_close(actual, expected, dtype=jnp.float32):
    """Within the rounding of the type; every sum is float32."""
    assert actual.dtype == expected.dtype == dtype
    atol = 1e-5 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(*(np.asarray(a, np.float32) for a in (actual, expected)), rtol=atol, atol=atol)


@pytest.mark.parametrize("case", CASES)
def test_conv_equals_the_loop(case):
    x, kernel, _ = arrays(*case)
    actual = conv_pallas.conv(x, kernel, tiling=SMALL, interpret=True)
    assert_close(actual, conv._conv_by_loop(x, kernel.astype(x.dtype)), x.dtype)


@pytest.mark.parametrize("case", CASES)
def test_correlate_equals_the_loop(case):
    x, kernel, ct = arrays(*case)
    expected = conv._correlate_by_loop(x, ct, sides=kernel.shape[1:3])
    scale = jnp.abs(expected).max()
    actual = conv_pallas.correlate(x, ct, sides=kernel.shape[1:3], tiling=SMALL, interpret=True)
    assert_close(actual / scale, expected / scale)


@pytest.mark.slow
def test_wide_layers_are_cut_into_blocks_of_channels():
    x, kernel, ct = arrays(1, (3, 5), (48, 100), (3, 3), jnp.float32)
    assert_close(conv_pallas.conv(x, kernel, interpret=True), conv._conv_by_loop(x, kernel))
    actual = conv_pallas.correlate(x, ct, sides=(3, 3), interpret=True)
    np.testing.assert_allclose(actual, conv._correlate_by_loop(x, ct, sides=(3, 3)), rtol=1e-4, atol=1e-4)


def test_too_many_channels_are_named():
    with pytest.raises(InputError, match=r"got \(3, 3, 1000, 8\) in float32"):
        conv_pallas.conv(jnp.zeros((1, 1, 4, 4, 1000)), jnp.zeros((1, 3, 3, 1000, 8)))


@pytest.mark.skipif(
    jax.__version_info__ > (0, 10, 2) and jax.default_backend() != "gpu",
    reason="later versions of JAX compile Triton as they lower it, which takes the CUDA plugin",
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("channels", [(2, 32), (32, 32), (64, 32), (32, 64)])
def test_lowers_for_cuda_without_a_card(channels, dtype):
    """Lowering runs Pallas's Triton rules and MLIR's verifier, not yet the compiler of Triton."""
    groups, n, h, w, sides = 4, 1, 100, 128, (3, 3)
    x = jax.ShapeDtypeStruct((groups, n, h, w, channels[0]), dtype)
    kernel = jax.ShapeDtypeStruct((groups, *sides, *channels), jnp.float32)
    ct = jax.ShapeDtypeStruct((groups, n, h, w, channels[1]), dtype)

    def conv_and_correlate(x, kernel, ct):
        return conv_pallas.conv(x, kernel), conv_pallas.correlate(x, ct, sides=sides)

    lowered = jax.jit(conv_and_correlate).trace(x, kernel, ct).lower(lowering_platforms=("cuda",)).as_text()
    assert lowered.count("xla.gpu.triton") == 2
    assert "convolution" not in lowered
