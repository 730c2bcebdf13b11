"""Forward models: from an image to its measurement, noise, and from a measurement back to the image grid.

Every function takes one image or a stack of them: `*b` stands for any leading axes. Images are `(*b, h, w, 1)`, float32 in
[0, 1]. K-space is complex64 with its zero frequency in the corner. Transforms are orthonormal, so the adjoint is the
inverse, and noise has the same strength in k-space and in the image. All functions are pure and differentiable. Shapes are
checked while tracing: a wrong shape raises `InputError`. Section numbers are those of Wang, Dalca and Sabuncu (2022).

The operator and the noise are separate functions, so that the operator stays linear. A noisy measurement applies both:

    y = complex_noise(key, op.forward(x), mask, sigma=0.01)
"""

import numbers
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax.runtime.errors import InputError


class Operator(NamedTuple):
    """A linear measurement, and the network input for a measurement.

    `to_net_input` is the adjoint of `forward`, except for super-resolution, where it is the pseudo-inverse.
    """

    forward: Callable[[jax.Array], jax.Array]  # x -> A x
    to_net_input: Callable[[jax.Array], jax.Array]  # y -> two-channel network input (*b, h, w, 2)
    mask: jax.Array | None = None  # (h, w), that of an operator that samples k-space
    maps: jax.Array | None = None  # (c, h, w), the sensitivities of several coils

    @property
    def measure(self) -> Callable[[jax.Array], jax.Array]:
        """Deprecated alias of `forward`."""
        return self.forward

    @property
    def lift(self) -> Callable[[jax.Array], jax.Array]:
        """Deprecated alias of `to_net_input`."""
        return self.to_net_input


def csmri(mask: jax.Array) -> Operator:
    """Single-coil compressed-sensing MRI (Sec. II-A, V-F.1).

    Args:
        mask: `(h, w)`, 1 where k-space is sampled, zero frequency in the corner.

    Returns:
        `forward`: `(*b, h, w, 1)` image -> `(*b, h, w, 1)` k-space, zero where not sampled.
        `to_net_input`: k-space -> `(*b, h, w, 2)`, real and imaginary part of the zero-filled inverse. It applies
            the mask, so it is the adjoint of `forward` for any k-space.

    Raises:
        InputError: if `mask` is not two-dimensional.
    """
    mask = _check_mask(mask)

    def forward(x):
        return _broadcast_mask("x", x, mask) * jnp.fft.fft2(x, axes=(-3, -2), norm="ortho")

    def to_net_input(y):
        return _channels(jnp.fft.ifft2(_broadcast_mask("y", y, mask) * y, axes=(-3, -2), norm="ortho"))

    return Operator(forward, to_net_input, mask)


def sense(mask: jax.Array, maps: jax.Array) -> Operator:
    """Multi-coil MRI: every coil measures the image times its sensitivity (SENSE, Pruessmann et al., MRM 42:952, 1999).

    Args:
        mask: `(h, w)`, 1 where k-space is sampled, zero frequency in the corner.
        maps: `(c, h, w)` complex sensitivities. If sum |maps|^2 <= 1 over the coils, as in `Coils`, `forward` does not
            increase the norm of an image.

    Returns:
        `forward`: `(*b, h, w, 1)` image -> `(*b, c, h, w)` k-space of the coils, zero where not sampled.
        `to_net_input`: k-space -> `(*b, h, w, 2)`, real and imaginary part of the zero-filled inverse, combined by
            the conjugate maps. It applies the mask, so it is the adjoint of `forward` for any k-space.

    Raises:
        InputError: if `mask` is not two-dimensional, or `maps` is not `(c, h, w)` on its grid.
    """
    mask = _check_mask(mask)
    if jnp.ndim(maps) != 3 or jnp.shape(maps)[1:] != mask.shape:
        raise InputError(f"`maps` must have shape (c, {_join(mask.shape)}) as the mask, got {jnp.shape(maps)}.")
    maps = jnp.asarray(maps, jnp.complex64)

    def forward(x):
        _broadcast_mask("x", x, mask)
        shape = (*x.shape[:-3], *maps.shape)
        coil_images = jnp.broadcast_to(maps, shape) * jnp.broadcast_to(jnp.expand_dims(x[..., 0], -3), shape)
        return jnp.broadcast_to(mask, shape) * jnp.fft.fft2(coil_images, norm="ortho")

    def to_net_input(y):
        if y.shape[-3:] != maps.shape:
            raise InputError(f"`y` must have shape (*b, {_join(maps.shape)}) as the maps, got {y.shape}.")
        coil_images = jnp.fft.ifft2(jnp.broadcast_to(mask, y.shape) * y, norm="ortho")
        return _channels(jnp.sum(jnp.broadcast_to(jnp.conj(maps), y.shape) * coil_images, axis=-3)[..., None])

    return Operator(forward, to_net_input, mask, maps)


def infer_operator(kspace: jax.Array, maps: jax.Array | None = None) -> Operator:
    """The operator of k-space that is zero where it was not sampled: `csmri` of `(h, w, 1)`, `sense` of `(c, h, w)`."""
    if maps is None:
        return csmri(kspace[..., 0] != 0)
    return sense(jnp.any(kspace != 0, axis=0), maps)


def denoising() -> Operator:
    """Denoising, A = I (Sec. V-F.2).

    Returns:
        `forward`: the image itself.
        `to_net_input`: `(*b, h, w, 1)` -> `(*b, h, w, 2)`, real and imaginary part; the latter is 0 for a real image.
    """
    return Operator(lambda x: x, _channels)


def super_resolution(*, factor: int = 4) -> Operator:
    """Super-resolution, A = D (Sec. V-F.3): `forward` takes the mean of each block, `to_net_input` repeats each pixel.

    A scanner with larger pixels measures such means. The authors use bicubic sampling without a low-pass filter, which
    causes aliasing; means cause little. Nearest neighbour (repeating pixels) is `factor ** 2` times the adjoint, and the
    exact pseudo-inverse: A to_net_input(y) = y. So the network input agrees with the data.

    Args:
        factor: side of a block in pixels.

    Returns:
        `forward`: `(*b, h, w, 1)` -> `(*b, h / factor, w / factor, 1)`; raises `InputError` if `factor` does not divide
            both sides.
        `to_net_input`: back to `(*b, h, w, 2)`, real and imaginary part; the latter is 0 for a real image.

    Raises:
        InputError: if `factor` is not a whole number of at least 1.
    """
    if not (isinstance(factor, numbers.Integral) and factor >= 1):
        raise InputError(f"`factor` must be a whole number of at least 1, got {factor!r}.")

    def forward(x):
        *b, h, w, c = _check_image("x", x).shape
        if h % factor or w % factor:
            raise InputError(f"`x` must have sides that `factor` {factor} divides, got {h} x {w}.")
        return x.reshape(*b, h // factor, factor, w // factor, factor, c).mean((-4, -2))

    def to_net_input(y):
        return jnp.repeat(jnp.repeat(_channels(y), factor, axis=-3), factor, axis=-2)

    return Operator(forward, to_net_input)


def awgn(key: jax.Array, y: jax.Array, *, sigma: float | jax.Array) -> jax.Array:
    """Add real white Gaussian noise of standard deviation `sigma` to the real image `y` (Sec. V-F.2: 0.1).

    Raises:
        InputError: if `y` is complex, for which `complex_noise` is meant, or `sigma` is a negative number.
    """
    if jnp.iscomplexobj(y):
        raise InputError(f"`y` must be real, got {y.dtype}; `complex_noise` is for k-space.")
    return y + _check_sigma(sigma) * jax.random.normal(key, y.shape, y.dtype)


def complex_noise(key: jax.Array, y: jax.Array, mask: jax.Array, *, sigma: float | jax.Array) -> jax.Array:
    """Add circular complex Gaussian noise to k-space where it is sampled; elsewhere `y` is not changed, and stays 0.

    `E |n|^2 = sigma^2`: the real and the imaginary part have the standard deviation `sigma / sqrt(2)` each. If all of
    k-space is sampled, the same holds for the image. So `sigma` is in units of image intensity.

    Args:
        key: random key.
        y: `(*b, h, w, 1)` complex k-space.
        mask: `(h, w)`, that of `csmri`.
        sigma: standard deviation, at least 0.

    Raises:
        InputError: if `y` is real, the mask does not fit or `sigma` is a negative number.
    """
    if not jnp.iscomplexobj(y):
        raise InputError(f"`y` must be complex k-space, got {y.dtype}; `awgn` is for real images.")
    # a complex normal of jax.random has E |n|^2 = 1
    return y + _check_sigma(sigma) * _broadcast_mask("y", y, _check_mask(mask)) * jax.random.normal(key, y.shape, y.dtype)


def rician(key: jax.Array, x: jax.Array, *, sigma: float | jax.Array) -> jax.Array:
    """The magnitude `|x + n1 + i n2|` of the real image `x` with complex noise, as scanners store it.

    By the convention of the Rice distribution, `n1` and `n2` have the standard deviation `sigma` EACH. For the same `sigma`
    this is sqrt(2) times the noise of `complex_noise`.

    Raises:
        InputError: if `x` is complex or `sigma` is a negative number.
    """
    if jnp.iscomplexobj(x):
        raise InputError(f"`x` must be real, got {x.dtype}.")
    real, imaginary = _check_sigma(sigma) * jax.random.normal(key, (2, *x.shape), x.dtype)
    return jnp.abs(jax.lax.complex(x + real, imaginary))  # unlike sqrt(a^2 + b^2), its gradient at 0 is finite


def magnitude(net_input: jax.Array) -> jax.Array:
    """The modulus of a network input, `(*b, h, w, 2) -> (*b, h, w, 1)`: the zero-filled image.

    Where the modulus is 0, its gradient is 0 (without the two `where`, the gradient of the root would be NaN).
    """
    square = jnp.sum(jnp.square(net_input), axis=-1, keepdims=True)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def data_consistency(x_hat: jax.Array, y: jax.Array, *, measure: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """J(x_hat, y) = ||A x_hat - y||_2^2, a sum over the measurement (Eq. 3).

    Args:
        x_hat: `(*b, h, w, c)`.
        y: the measurement, real or complex, of the shape of `measure(x_hat)`, three axes for each image.
        measure: the forward operator A, such as `Operator.forward`.

    Raises:
        InputError: if `y` does not have the shape of `measure(x_hat)`.
    """
    check_images(x_hat=x_hat)
    y_hat = measure(x_hat)
    if y_hat.shape != y.shape:
        raise InputError(f"`y` must have the shape of the measured `x_hat`, {y_hat.shape}, got {y.shape}.")
    residual = y_hat - y
    # Not |residual|^2: the gradient of the modulus at 0 is NaN.
    return jnp.sum(jnp.square(residual.real) + jnp.square(residual.imag), axis=(-3, -2, -1))


def check_images(**images: jax.Array) -> None:
    """Raise `InputError` unless the images are float, have at least three axes, and all have the same shape."""
    first, *_ = images
    for name, image in images.items():
        if image.ndim < 3 or not jnp.issubdtype(image.dtype, jnp.floating):
            raise InputError(f"`{name}` must be float images (*b, h, w, c), got {image.dtype} of shape {image.shape}.")
        if image.shape != images[first].shape:
            raise InputError(f"`{name}` must have the shape of `{first}`, {images[first].shape}, got {image.shape}.")


def _channels(image):
    """`(*b, h, w, 1)` real or complex -> `(*b, h, w, 2)`, the real and the imaginary part."""
    image = _check_image("y", image)
    return jnp.concatenate([image.real, image.imag], axis=-1)


def _check_image(name, array):
    """The array, if its shape is that of images."""
    if array.ndim < 3 or array.shape[-1] != 1:
        raise InputError(f"`{name}` must have shape (*b, h, w, 1), got {array.shape}.")
    return array


def _check_mask(mask):
    """The mask as float32, if its shape is that of a mask."""
    if jnp.ndim(mask) != 2:
        raise InputError(f"`mask` must have shape (h, w), got {jnp.shape(mask)}.")
    return jnp.asarray(mask, jnp.float32)


def _broadcast_mask(name, array, mask):
    """The mask with the shape of `array`, if it fits."""
    if _check_image(name, array).shape[-3:-1] != mask.shape:
        raise InputError(f"`{name}` must have shape (*b, {_join(mask.shape)}, 1) as the mask, got {array.shape}.")
    return jnp.broadcast_to(mask[..., None], array.shape)


def _join(shape):
    return ", ".join(map(str, shape))


def _check_sigma(sigma):
    """The standard deviation, if it is not a negative number; a traced one cannot be checked."""
    if isinstance(sigma, numbers.Real) and not float(sigma) >= 0:
        raise InputError(f"`sigma` must be at least 0, got {sigma}.")
    return sigma
