"""The main network M_theta: a U-Net for ONE image (Sec. V-B). It does not depend on lambda.

`UNet().apply({"params": theta, "batch_stats": stats}, net_input)` is the paper's M_theta(y). The network has four levels of
`width` channels with two 3x3 convolutions each, every one followed by a norm and ReLU; three 2x2 max-pools; bilinear
up-sampling with aligned corners; skips by concatenation; and a 1x1 head. With two input channels, width 32 and one output
channel it has 149,409 parameters, of which 896 belong to the norms.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from hyperrecon_jax.models.conv import conv2d
from hyperrecon_jax.models.norm import instance_norm_relu, moments, normalize
from hyperrecon_jax.models.resample import max_pool, upsample
from hyperrecon_jax.physics.net_input import divide_by, intensity_scale
from hyperrecon_jax.physics.operators import magnitude
from hyperrecon_jax.runtime.errors import InputError

NORMS = ("batch", "instance", "none")
PRECISIONS = {"float32": jax.lax.Precision.HIGHEST, "tf32": jax.lax.Precision.DEFAULT, "bfloat16": None}
LEVELS = 4


class UNet(nn.Module):
    """U-Net for one image.

    Attributes:
        width: channels of every level.
        out_channels: channels of the result.
        norm: "batch" (the paper's; statistics over the images of a batch, and so over their lambdas), "instance"
            (statistics over the pixels of this image) or "none".
        residual: add the magnitude of the two-channel input to the result.
        precision: one of `PRECISIONS`. "float32"; "tf32": products of float32 in the fast mode of the backend (tf32 on a
            GPU, bfloat16 on a TPU, float32 on a CPU); "bfloat16": activations, too. Parameters, their gradients, the
            statistics of norms, the head and the result are always float32.
        remat: in the backward pass, recompute the activations inside a block instead of storing them. This takes less
            memory and more time.
        normalize: divide the input by its `intensity_scale` and multiply the result by it. Then M(a y) = a M(y) for a >= 0.
        head_init: initial kernel of the last layer.
    """

    width: int = 32
    out_channels: int = 1
    norm: str = "instance"
    residual: bool = True
    precision: str = "float32"
    remat: bool = False
    normalize: bool = False
    head_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, net_input: jax.Array, *, batch_axes: tuple[str, ...] | None = None) -> jax.Array:
        """Reconstruct one image.

        Args:
            net_input: `(h, w, c)` of any size; c = 2, the real and imaginary part of the zero-filled image. Sides that are
                no multiples of 8 are padded inside (`pad_sides`), and the result is cropped.
            batch_axes: for `norm="batch"` only. None: evaluate with the running statistics. Otherwise train: take the
                statistics over the named mapped axes (`()`: over this image), and update the running statistics.

        Returns:
            `(h, w, out_channels)`.

        Raises:
            InputError: for another number of axes, or an unknown `norm` or `precision`.
        """
        if net_input.ndim != 3:
            raise InputError(f"`net_input` must have shape (h, w, c), got {tuple(net_input.shape)}.")
        if self.norm not in NORMS:
            raise InputError(f"`norm` must be one of {', '.join(NORMS)}, got {self.norm!r}.")
        if self.precision not in PRECISIONS:
            raise InputError(f"`precision` must be one of {', '.join(PRECISIONS)}, got {self.precision!r}.")
        precision = PRECISIONS[self.precision]

        def two_convolutions(unet, x, name):
            for i in (0, 1):
                x, bias = Conv(unet.width, precision=precision, name=f"{name}_conv{i}").without_bias(x)
                x = NormRelu(unet.norm, name=f"{name}_norm{i}")(x, bias, batch_axes=batch_axes)
            return x

        def block(x, name):
            return (nn.remat(two_convolutions, static_argnums=2) if self.remat else two_convolutions)(self, x, name)

        skips = []
        net_input = jnp.asarray(net_input)
        scale = intensity_scale(net_input) if self.normalize else None
        if scale is not None:
            net_input = divide_by(net_input, scale)
        dtype = net_input.dtype
        x = pad_sides(net_input).astype(jnp.bfloat16 if self.precision == "bfloat16" else dtype)
        for level in range(1, LEVELS):
            x = block(x, f"down{level}")
            skips.append(x)
            x = max_pool(x)
        x = block(x, f"down{LEVELS}")
        for level in range(LEVELS - 1, 0, -1):
            x = block(jnp.concatenate([upsample(x), skips.pop()], axis=-1), f"up{level}")
        x = Conv(self.out_channels, (1, 1), self.head_init, precision, name="head")(x.astype(dtype))
        x = crop_sides(x, net_input.shape)
        x = x + magnitude(net_input) if self.residual else x
        return x if scale is None else x * scale


class Conv(nn.Module):
    """A convolution with a bias, of an image `(h, w, c)`; it stays fast if every sample has its own kernel (`conv.py`)."""

    features: int
    sides: tuple[int, int] = (3, 3)
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()
    precision: jax.lax.Precision | None = None

    def __call__(self, x: jax.Array) -> jax.Array:
        """The convolution of `(h, w, c)` plus the bias: `(h, w, features)`, of the type of x."""
        y, bias = self.without_bias(x)
        return (y + bias[None, None]).astype(y.dtype)

    @nn.compact
    def without_bias(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The convolution alone, and the bias `(features,)`: `NormRelu` adds it without a pass over the image."""
        x = jnp.asarray(x)  # so that float64 from NumPy becomes float32
        x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)
        kernel = self.param("kernel", self.kernel_init, (*self.sides, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv2d(x, kernel, precision=self.precision), bias


class NormRelu(nn.Module):
    """Normalisation of an image `(h, w, c)` plus the bias of its convolution `(c,)`, and ReLU.

    Each channel then has a scale and a bias of its own. The sum of image and bias is never computed, which would be a pass
    over the image: the bias only moves the mean.

    As in PyTorch: epsilon is 1e-5; "batch" has running statistics with momentum 0.1 and an unbiased variance. (The variance
    of Flax's `BatchNorm` is biased, a difference of 2 % where a deep level has few pixels.)
    """

    kind: str  # one of `NORMS`

    @nn.compact
    def __call__(self, x: jax.Array, conv_bias: jax.Array, *, batch_axes: tuple[str, ...] | None) -> jax.Array:
        if self.kind == "none":
            return nn.relu((x + conv_bias[None, None]).astype(x.dtype))
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        if self.kind == "instance":
            return instance_norm_relu(x, scale, bias)  # the bias of the convolution cancels
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1:])
        running_var = self.variable("batch_stats", "var", jnp.ones, x.shape[-1:])
        if batch_axes is None or self.is_initializing():
            mean, var = running_mean.value, running_var.value
        else:
            mean, var = moments(x, conv_bias, batch_axes=batch_axes)
            count = x.shape[0] * x.shape[1] * (jax.lax.psum(1, batch_axes) if batch_axes else 1)
            running_mean.value = 0.9 * running_mean.value + 0.1 * mean
            running_var.value = 0.9 * running_var.value + 0.1 * var * (count / (count - 1))
        return nn.relu(normalize(x, mean - conv_bias, var, scale, bias))


def side_margins(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """How many rows and columns `pad_sides` adds to an image `(h, w, ...)`: before and after it, along both sides."""
    margins = [-side % 2 ** (LEVELS - 1) for side in shape[:2]]
    return [(margin // 2, margin - margin // 2) for margin in margins]


def pad_sides(x: jax.Array) -> jax.Array:
    """An image `(h, w, c)` whose sides can be halved three times: mirrored at its borders to multiples of 8."""
    margins = side_margins(x.shape)
    return jnp.pad(x, [*margins, (0, 0)], mode="symmetric") if any(map(any, margins)) else x


def crop_sides(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The part of a padded image that an image of `shape`, `(h, w, ...)`, had before `pad_sides`."""
    (top, _), (left, _) = side_margins(shape)
    return x[top : top + shape[0], left : left + shape[1]]
