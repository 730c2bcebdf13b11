"""Forward models: how an image becomes a measurement, how noise enters, and how a measurement returns to the grid.

Every function takes one image or a stack: `*b` stands for any leading axes. Images are `(*b, h, w, 1)`, float32 in
[0, 1]; k-space is complex64 with its zero frequency in the corner; transforms are orthonormal, so the adjoint is the
inverse and noise is as strong in k-space as in the image. All are pure and differentiable. Shapes are checked while
tracing: wrong ones raise `InputError`. Section numbers are those of Wang, Dalca and Sabuncu (2022).

A noisy measurement is the sum of two functions, so that the experiment chooses the noise and the operator stays linear:

    y = complex_noise(key, op.forward(x), mask, sigma=0.01)
"""

import numbers
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax.runtime.errors import InputError


class Operator(NamedTuple):
    """A linear measurement, and the image that a network gets of one.

    `to_net_input` is the adjoint of `forward`, but for super-resolution, where it is the pseudo-inverse. `measure` and
    `lift` are the names that the two had before; they stay for code that uses them.
    """

    forward: Callable[[jax.Array], jax.Array]  # x -> A x
    to_net_input: Callable[[jax.Array], jax.Array]  # y -> two-channel network input (*b, h, w, 2)

    @property
    def measure(self) -> Callable[[jax.Array], jax.Array]:
        return self.forward

    @property
    def lift(self) -> Callable[[jax.Array], jax.Array]:
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
    mask = _mask(mask)

    def forward(x):
        return _on_grid("x", x, mask) * jnp.fft.fft2(x, axes=(-3, -2), norm="ortho")

    def to_net_input(y):
        return _channels(jnp.fft.ifft2(_on_grid("y", y, mask) * y, axes=(-3, -2), norm="ortho"))

    return Operator(forward, to_net_input)


def sense(mask: jax.Array, maps: jax.Array) -> Operator:
    """Multi-coil MRI: every coil sees the image through its sensitivity (SENSE, Pruessmann et al., MRM 42:952, 1999).

    Args:
        mask: `(h, w)`, 1 where k-space is sampled, zero frequency in the corner.
        maps: `(c, h, w)` complex sensitivities. Where sum |maps|^2 <= 1, as `Coils` promises, no image gets longer.

    Returns:
        `forward`: `(*b, h, w, 1)` image -> `(*b, c, h, w)` k-space of the coils, zero where not sampled.
        `to_net_input`: k-space -> `(*b, h, w, 2)`, real and imaginary part of the zero-filled inverse, combined by
            the conjugate maps. It applies the mask, so it is the adjoint of `forward` for any k-space.

    Raises:
        InputError: if `mask` is not two-dimensional, or `maps` is not `(c, h, w)` on its grid.
    """
    mask = _mask(mask)
    if jnp.ndim(maps) != 3 or jnp.shape(maps)[1:] != mask.shape:
        raise InputError(f"`maps` must have shape (c, {_listed(mask.shape)}) as the mask, got {jnp.shape(maps)}.")
    maps = jnp.asarray(maps, jnp.complex64)

    def forward(x):
        _on_grid("x", x, mask)
        shape = (*x.shape[:-3], *maps.shape)
        seen = jnp.broadcast_to(maps, shape) * jnp.broadcast_to(jnp.expand_dims(x[..., 0], -3), shape)
        return jnp.broadcast_to(mask, shape) * jnp.fft.fft2(seen, norm="ortho")

    def to_net_input(y):
        if y.shape[-3:] != maps.shape:
            raise InputError(f"`y` must have shape (*b, {_listed(maps.shape)}) as the maps, got {y.shape}.")
        images = jnp.fft.ifft2(jnp.broadcast_to(mask, y.shape) * y, norm="ortho")
        return _channels(jnp.sum(jnp.broadcast_to(jnp.conj(maps), y.shape) * images, axis=-3)[..., None])

    return Operator(forward, to_net_input)


def denoising() -> Operator:
    """Denoising, A = I (Sec. V-F.2).

    Returns:
        `forward`: the image itself.
        `to_net_input`: `(*b, h, w, 1)` -> `(*b, h, w, 2)`, real and imaginary part; the latter is 0 for a real image.
    """
    return Operator(lambda x: x, _channels)


def super_resolution(*, factor: int = 4) -> Operator:
    """Super-resolution, A = D (Sec. V-F.3): means of blocks down, nearest neighbour up.

    A block mean is what a scanner with larger pixels integrates, and it does not alias as the authors' bicubic sampling
    without a low-pass does. Nearest up-sampling is its exact pseudo-inverse, A to_net_input(y) = y, and
    `factor ** 2` times its adjoint, so the network input agrees with the data.

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
        *b, h, w, c = _image("x", x).shape
        if h % factor or w % factor:
            raise InputError(f"`x` must have sides that `factor` {factor} divides, got {h} x {w}.")
        return x.reshape(*b, h // factor, factor, w // factor, factor, c).mean((-4, -2))

    def to_net_input(y):
        return jnp.repeat(jnp.repeat(_channels(y), factor, axis=-3), factor, axis=-2)

    return Operator(forward, to_net_input)


def awgn(key: jax.Array, y: jax.Array, *, sigma: float | jax.Array) -> jax.Array:
    """Adds real white Gaussian noise of standard deviation `sigma` to the real image `y` (Sec. V-F.2: 0.1).

    Raises:
        InputError: if `y` is complex, for which `complex_noise` is meant, or `sigma` is a negative number.
    """
    if jnp.iscomplexobj(y):
        raise InputError(f"`y` must be real, got {y.dtype}; `complex_noise` is for k-space.")
    return y + _scale(sigma) * jax.random.normal(key, y.shape, y.dtype)


def complex_noise(key: jax.Array, y: jax.Array, mask: jax.Array, *, sigma: float | jax.Array) -> jax.Array:
    """Adds circular complex Gaussian noise to k-space where it is sampled; elsewhere `y` stays as it is, that is zero.

    `E |n|^2 = sigma^2`: real and imaginary part have standard deviation `sigma / sqrt(2)` each. With all of k-space
    sampled the same holds for the image, so `sigma` is in units of image intensity.

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
    return y + _scale(sigma) * _on_grid("y", y, _mask(mask)) * jax.random.normal(key, y.shape, y.dtype)


def rician(key: jax.Array, x: jax.Array, *, sigma: float | jax.Array) -> jax.Array:
    """Magnitude `|x + n1 + i n2|` of the real image `x` under complex noise, as scanners store it.

    By the convention of the Rice distribution `n1` and `n2` have standard deviation `sigma` EACH, sqrt(2) times that of
    `complex_noise` for the same number.

    Raises:
        InputError: if `x` is complex or `sigma` is a negative number.
    """
    if jnp.iscomplexobj(x):
        raise InputError(f"`x` must be real, got {x.dtype}.")
    real, imaginary = _scale(sigma) * jax.random.normal(key, (2, *x.shape), x.dtype)
    return jnp.abs(jax.lax.complex(x + real, imaginary))  # unlike sqrt(a^2 + b^2), its gradient at 0 is finite


def magnitude(net_input: jax.Array) -> jax.Array:
    """Modulus of a network input, `(*b, h, w, 2) -> (*b, h, w, 1)`: the image a reconstruction starts from.

    Where the modulus is 0 its gradient is 0 (the root's own would be NaN).
    """
    square = jnp.sum(jnp.square(net_input), axis=-1, keepdims=True)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def data_consistency(x_hat: jax.Array, y: jax.Array, *, measure: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """J(x_hat, y) = ||A x_hat - y||_2^2, a sum over the measurement (Eq. 3).

    Args:
        x_hat: `(*b, h, w, c)`.
        y: the measurement, real or complex, of the shape of `measure(x_hat)`, three axes for each image.
        measure: the forward operator A.

    Raises:
        InputError: if `y` has not the shape of `measure(x_hat)`.
    """
    check_images(x_hat=x_hat)
    y_hat = measure(x_hat)
    if y_hat.shape != y.shape:
        raise InputError(f"`y` must have the shape of the measured `x_hat`, {y_hat.shape}, got {y.shape}.")
    residual = y_hat - y
    # Not |residual|^2: the modulus has no gradient at zero.
    return jnp.sum(jnp.square(residual.real) + jnp.square(residual.imag), axis=(-3, -2, -1))


def check_images(**images: jax.Array) -> None:
    """Raise `InputError` unless images, given by name, are float, have three axes or more, and all one shape."""
    first, *_ = images
    for name, image in images.items():
        if image.ndim < 3 or not jnp.issubdtype(image.dtype, jnp.floating):
            raise InputError(f"`{name}` must be float images (*b, h, w, c), got {image.dtype} of shape {image.shape}.")
        if image.shape != images[first].shape:
            raise InputError(f"`{name}` must have the shape of `{first}`, {images[first].shape}, got {image.shape}.")


def _channels(image):
    """`(*b, h, w, 1)` real or complex -> `(*b, h, w, 2)` real and imaginary part."""
    image = _image("y", image)
    return jnp.concatenate([image.real, image.imag], axis=-1)


def _image(name, array):
    if array.ndim < 3 or array.shape[-1] != 1:
        raise InputError(f"`{name}` must have shape (*b, h, w, 1), got {array.shape}.")
    return array


def _mask(mask):
    if jnp.ndim(mask) != 2:
        raise InputError(f"`mask` must have shape (h, w), got {jnp.shape(mask)}.")
    return jnp.asarray(mask, jnp.float32)


def _on_grid(name, array, mask):
    """The mask with the axes of `array`."""
    if _image(name, array).shape[-3:-1] != mask.shape:
        raise InputError(f"`{name}` must have shape (*b, {_listed(mask.shape)}, 1) as the mask, got {array.shape}.")
    return jnp.broadcast_to(mask[..., None], array.shape)


def _listed(shape):
    return ", ".join(map(str, shape))


def _scale(sigma):
    # a traced or array sigma has no value to look at
    if isinstance(sigma, numbers.Real) and not sigma >= 0:
        raise InputError(f"`sigma` must be at least 0, got {sigma}.")
    return sigma
