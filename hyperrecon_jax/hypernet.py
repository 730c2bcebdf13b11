"""The hypernetwork H_phi: a vector of loss coefficients in, the parameter tree of ANY target network out (Sec. IV, V-B).

A fully connected trunk of four hidden layers of `width` units with LeakyReLU(0.01), then one linear head for each
generated leaf. The target is described by its leaves, names and shapes; nothing here knows what the target computes.
"""

import math
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
    def __call__(self, coefficients: jax.Array) -> dict[Path, jax.Array]:
        """`(K,)` coefficients -> `{path: leaf}`."""
        h = coefficients
        for i in range(self.depth):
            h = nn.leaky_relu(nn.Dense(self.width, kernel_init=nn.initializers.he_normal(), name=f"hidden{i}")(h), 0.01)
        return {path: nn.Dense(math.prod(shape), name=head_name(path))(h).reshape(shape) for path, shape in self.leaves}


def head_name(path: Path) -> str:
    """The name of the head, and so of its parameters, that generates the leaf at `path`."""
    return "head:" + ".".join(path)


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
