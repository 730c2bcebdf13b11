"""The main network M_theta: a U-Net of ONE image (Sec. V-B). It knows nothing of lambda.

`UNet().apply({"params": theta, "batch_stats": stats}, y)` is the paper's M_theta(y): weights in, image out. Four levels of
`width` channels, two 3x3 convolutions each with normalisation and ReLU, three 2x2 max-pools, bilinear up-sampling with
aligned corners, skips by concatenation, and a 1x1 head. With two input channels, width 32 and one output channel it has
149,409 parameters, of which 896 belong to the normalisation.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from hyperrecon_jax.models.conv import conv2d
from hyperrecon_jax.physics.operators import magnitude
from hyperrecon_jax.runtime.errors import InputError

NORMS = ("batch", "instance", "none")
PRECISIONS = {"float32": jax.lax.Precision.HIGHEST, "tf32": jax.lax.Precision.DEFAULT, "bfloat16": None}
LEVELS = 4


class UNet(nn.Module):
    """U-Net of one image.

    Attributes:
        width: channels of every level.
        out_channels: channels of the result.
        norm: "batch" (the paper's; statistics over the images of a batch, and so over their lambdas), "instance" (over the
            pixels of this image alone) or "none".
        residual: add the magnitude of the two-channel input to the result.
        precision: of what is computed, of `PRECISIONS`: "float32"; "tf32", the backend's own fast products of float32 (on a
            GPU tf32, on a TPU bfloat16, on a CPU float32); "bfloat16", activations too. Parameters and their gradients,
            statistics of norms, the head and the result are float32.
        remat: in a backward pass, compute what is inside of a block again instead of keeping it: less memory, more time.
    """

    width: int = 32
    out_channels: int = 1
    norm: str = "instance"
    residual: bool = True
    precision: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(self, y: jax.Array, *, batch_axes: tuple[str, ...] | None = None) -> jax.Array:
        """Reconstruct one image.

        Args:
            y: `(h, w, c)`, h and w divisible by 8; c = 2, the real and imaginary part of the zero-filled image.
            batch_axes: for `norm="batch"` only. None: evaluate with the running statistics. Otherwise train: use the
                statistics of this batch, taken over the named mapped axes (`()`: this image alone), and update the
                running ones.

        Returns:
            `(h, w, out_channels)`.

        Raises:
            InputError: for a size not divisible by 8, or an unknown `norm` or `precision`.
        """
        if y.ndim != 3 or y.shape[0] % 8 or y.shape[1] % 8:
            raise InputError(f"`y` must have shape (h, w, c) with h and w divisible by 8, got {tuple(y.shape)}.")
        if self.norm not in NORMS:
            raise InputError(f"`norm` must be one of {', '.join(NORMS)}, got {self.norm!r}.")
        if self.precision not in PRECISIONS:
            raise InputError(f"`precision` must be one of {', '.join(PRECISIONS)}, got {self.precision!r}.")
        precision = PRECISIONS[self.precision]

        def two_convolutions(unet, x, name):
            for i in (0, 1):
                x = Conv(unet.width, precision=precision, name=f"{name}_conv{i}")(x)
                x = nn.relu(Norm(unet.norm, name=f"{name}_norm{i}")(x, batch_axes=batch_axes))
            return x

        def block(x, name):
            return (nn.remat(two_convolutions, static_argnums=2) if self.remat else two_convolutions)(self, x, name)

        skips = []
        y = jnp.asarray(y)
        x = y.astype(jnp.bfloat16 if self.precision == "bfloat16" else y.dtype)
        for level in range(1, LEVELS):
            x = block(x, f"down{level}")
            skips.append(x)
            x = max_pool(x)
        x = block(x, f"down{LEVELS}")
        for level in range(LEVELS - 1, 0, -1):
            x = block(jnp.concatenate([upsample(x), skips.pop()], axis=-1), f"up{level}")
        x = Conv(self.out_channels, (1, 1), nn.initializers.lecun_normal(), precision, name="head")(x.astype(y.dtype))
        return x + magnitude(y) if self.residual else x


class Conv(nn.Module):
    """A convolution with bias whose kernel may differ from sample to sample (`conv.py`)."""

    features: int
    sides: tuple[int, int] = (3, 3)
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()
    precision: jax.lax.Precision | None = None

    @nn.compact
    def __call__(self, x):
        x = jnp.asarray(x)  # NumPy's float64 is no type of the result's
        kernel = self.param("kernel", self.kernel_init, (*self.sides, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return (conv2d(x, kernel, precision=self.precision) + bias[None, None]).astype(x.dtype)


class Norm(nn.Module):
    """Normalisation of `(h, w, c)` over its pixels, with a learned scale and bias for each channel.

    As in PyTorch: epsilon 1e-5; `batch` keeps running statistics with momentum 0.1 and an unbiased variance. (Flax's
    `BatchNorm` keeps the biased one, which differs by 2 % where a deep level has few pixels.)
    """

    kind: str

    @nn.compact
    def __call__(self, x, *, batch_axes):
        if self.kind == "none":
            return x
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        if self.kind == "instance":
            mean, var = _moments(x, ())
        else:
            running_mean = self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1:])
            running_var = self.variable("batch_stats", "var", jnp.ones, x.shape[-1:])
            if batch_axes is None or self.is_initializing():
                mean, var = running_mean.value, running_var.value
            else:
                mean, var = _moments(x, batch_axes)
                count = x.shape[0] * x.shape[1] * (jax.lax.psum(1, batch_axes) if batch_axes else 1)
                running_mean.value = 0.9 * running_mean.value + 0.1 * mean
                running_var.value = 0.9 * running_var.value + 0.1 * var * (count / (count - 1))
        gain = scale * jax.lax.rsqrt(var + 1e-5)
        return (x * gain[None, None] + (bias - mean * gain)[None, None]).astype(x.dtype)


def _moments(x, batch_axes):
    average = (lambda a: jax.lax.pmean(a, batch_axes)) if batch_axes else (lambda a: a)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = average(jnp.mean(x, (0, 1)))
    return mean, average(jnp.mean(jnp.square(x - mean[None, None]), (0, 1)))


def max_pool(x: jax.Array) -> jax.Array:
    """2x2 maximum, `(h, w, c) -> (h/2, w/2, c)`: of four strided slices, since `reduce_window` is slow on a CPU."""
    return jnp.maximum(
        jnp.maximum(x[::2, ::2], x[::2, 1::2]),
        jnp.maximum(x[1::2, ::2], x[1::2, 1::2]),
    )


def upsample(x: jax.Array) -> jax.Array:
    """Bilinear, aligned corners, `(h, w, c) -> (2h, 2w, c)`."""
    return _upsample_rows(_upsample_rows(x).swapaxes(0, 1)).swapaxes(0, 1)


def _upsample_rows(x):
    """Output row o lies at o (h-1)/(2h-1): even ones between i-1 and i, odd ones between i and i+1."""
    h = x.shape[0]
    i = jnp.arange(h, dtype=jnp.float32)[:, None, None]
    before = jnp.concatenate([x[:1], x[:-1]])
    after = jnp.concatenate([x[1:], x[-1:]])
    even = x + (before - x) * (i / (2 * h - 1)).astype(x.dtype)
    odd = x + (after - x) * ((h - 1 - i) / (2 * h - 1)).astype(x.dtype)
    return jnp.stack([even, odd], axis=1).reshape(2 * h, *x.shape[1:])
