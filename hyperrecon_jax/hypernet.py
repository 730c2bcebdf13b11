"""The hypernetwork H_phi: a vector of loss coefficients in, the parameter tree of ANY target network out (Sec. IV, V-B).

A fully connected trunk of four hidden layers of `width` units with LeakyReLU(0.01), then one linear head for each
generated leaf. The target is described by its leaves, names and shapes; nothing here knows what the target computes.

Nearly all parameters are in the heads. Where a batch is spread over devices each device keeps a part of every head, makes
that part of the weights for the whole batch, and the devices exchange what they made (`generate_spread`): weights of their
samples, not gradients of the heads, which are some hundred times as many numbers.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Tree = Any
Path = tuple[str, ...]


class HyperNet(nn.Module):
    """Coefficients -> generated leaves.

    Attributes:
        leaves: `(path, shape)` of each leaf to generate.
        width: units of each hidden layer, the paper's d: 4, 32, 128 for HyperRecon-S, -M, -L.
        depth: hidden layers.
    """

    leaves: tuple[tuple[Path, tuple[int, ...]], ...]
    width: int = 128
    depth: int = 4

    @nn.compact
    def __call__(self, coefficients: jax.Array, *, embedding: bool = False) -> Any:
        """`(K,)` coefficients -> `{path: leaf}`; with `embedding` the `(d,)` that the heads project, and no more."""
        h = coefficients
        for i in range(self.depth):
            h = nn.leaky_relu(nn.Dense(self.width, kernel_init=nn.initializers.he_normal(), name=f"hidden{i}")(h), 0.01)
        if embedding:
            return h
        return {path: nn.Dense(math.prod(shape), name=head_name(path))(h).reshape(shape) for path, shape in self.leaves}


def head_name(path: Path) -> str:
    """The name of the head, and so of its parameters, that generates the leaf at `path`."""
    return "head:" + ".".join(path)


def is_cut(path: tuple[str, ...], shape: tuple[int, ...], devices: int) -> bool:
    """Whether the leaf of a tree of the hypernetwork's parameters is spread over so many devices, along its last axis.

    Args:
        path: names of the leaf, in any tree that holds such parameters, such as the optimizer's state.
        shape: of the whole leaf.
    """
    return any(name.startswith("head:") for name in path) and len(shape) > 0 and shape[-1] % devices == 0


def generate_spread(hypernet: HyperNet, params: Tree, coefficients: jax.Array, axis: str) -> dict[Path, jax.Array]:
    """The generated leaves of this device's samples, where each device has a part of the heads; one exchange for all.

    Args:
        hypernet: the module.
        params: its parameters, the leaves that `is_cut` of n devices says being the n-th parts.
        coefficients: `(B, K)` of the whole batch, B/n samples to each device, in the devices' order.
        axis: the mapped axis of the n devices.

    Returns:
        `{path: (B/n, *shape)}`. What is pulled back is the gradient of the whole batch for the parts of heads, and this
        device's share of a sum over the devices for all other parameters.
    """
    devices = jax.lax.axis_size(axis)
    size = len(coefficients) // devices
    h: Any = jax.vmap(partial(hypernet.apply, {"params": params}, embedding=True))(coefficients)
    mine = jax.lax.dynamic_slice_in_dim(h, jax.lax.axis_index(axis) * size, size)
    leaves, parts = {}, {}
    for path, shape in hypernet.leaves:
        head = params[head_name(path)]
        if is_cut((head_name(path),), (math.prod(shape),), devices):
            parts[path] = h @ head["kernel"] + head["bias"][None]
        else:
            leaves[path] = (mine @ head["kernel"] + head["bias"][None]).reshape(size, *shape)
    if parts:  # my part of every sample's weights -> every part of my samples' weights
        exchanged = jax.lax.all_to_all(jnp.concatenate(list(parts.values()), 1), axis, 0, 0, tiled=True)
        columns = exchanged.reshape(devices, size, -1).swapaxes(0, 1)
        for path, shape in hypernet.leaves:
            if path in parts:
                width = parts[path].shape[1]
                leaves[path] = columns[..., :width].reshape(size, *shape)
                columns = columns[..., width:]
    return leaves


def init(key: jax.Array, hypernet: HyperNet, *, num_coefficients: int, target: dict[Path, jax.Array]) -> Tree:
    """Initialise so that the generated network starts well for every lambda.

    A head is theta = b + W h. Its bias b starts as the target's own initial leaf, its W such that the part that depends on
    lambda has about the root mean square of that leaf, times `1/2`. (PyTorch's default, which the authors use, makes the
    generated weights' size depend on d instead, and relies on batch norm to mend it.)

    Args:
        key: PRNG key.
        hypernet: the module.
        num_coefficients: K.
        target: `{path: leaf}`, the target's own initial values of the leaves to generate.

    Returns:
        The parameters of `hypernet`.
    """
    params = hypernet.init(key, jnp.full((num_coefficients,), 1 / num_coefficients))["params"]
    for path, leaf in target.items():
        head = params[head_name(path)]
        rms = jnp.sqrt(jnp.mean(jnp.square(leaf)))
        head["kernel"] = 0.5 * rms * head["kernel"]
        head["bias"] = leaf.reshape(-1)
    return params
