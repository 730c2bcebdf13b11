"""The hypernetwork H_phi: a vector of loss coefficients in, the parameter tree of ANY target network out (Sec. IV, V-B).

Each generated leaf has a head: theta = theta_0 + W f, linear in the leaf's features f. Where these come from is the kind:

- "dense", the paper's: f = h for all leaves, of a fully connected trunk of four hidden layers with LeakyReLU(0.01);
- "low_rank": f = P h, a few numbers for each leaf, so that its head has the factors W and P;
- "mixture": f is the softmax of a linear map of the coefficients, one for each leaf: W holds a few kernels, which
  are mixed with weights above 0 that add up to 1, and there is no trunk.

The target is described by its leaves, names and shapes; nothing here knows what the target computes.

Nearly all parameters are in the heads. Where a batch is spread over devices each device keeps a part of every head, makes
that part of the weights for the whole batch, and the devices exchange what they made (`generate_sharded`): weights of their
samples, not gradients of the heads, which are some hundred times as many numbers.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from hyperrecon_jax.runtime.errors import InputError

Tree = Any
Path = tuple[str, ...]
KINDS = ("dense", "low_rank", "mixture")
ENCODINGS = ("coefficients", "circle")


class HyperNet(nn.Module):
    """Coefficients -> generated leaves.

    Attributes:
        leaves: `(path, shape)` of each leaf to generate.
        width: units of each hidden layer of the trunk, the paper's d: 4, 32, 128 for HyperRecon-S, -M, -L.
        depth: hidden layers.
        kind: of the features, of `KINDS`.
        rank: how many features a leaf has, if not "dense": the rank of its head, or how many kernels it mixes.
        encoding: of the input, of `ENCODINGS`: the "coefficients", or each as a point on the "circle" (`encode`).
    """

    leaves: tuple[tuple[Path, tuple[int, ...]], ...]
    width: int = 128
    depth: int = 4
    kind: str = "dense"
    rank: int = 4
    encoding: str = "coefficients"

    @nn.compact
    def __call__(self, coefficients: jax.Array, *, heads: bool = True) -> Any:
        """`(K,)` coefficients -> `{path: leaf}`; without `heads` `{path: (m,)}`, the features, and no more.

        Raises:
            InputError: for an unknown kind or encoding, or a rank below 1.
        """
        if self.kind not in KINDS:
            raise InputError(f"`kind` must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        if self.rank < 1:
            raise InputError(f"`rank` must be at least 1, got {self.rank}.")
        h = encode(coefficients, self.encoding)
        for i in range(self.depth if self.kind != "mixture" else 0):
            h = nn.leaky_relu(nn.Dense(self.width, kernel_init=nn.initializers.he_normal(), name=f"hidden{i}")(h), 0.01)
        features = {path: self._features(h, path) for path, _ in self.leaves}
        if not heads:
            return features
        return {
            path: nn.Dense(math.prod(shape), name=head_name(path))(features[path]).reshape(shape)
            for path, shape in self.leaves
        }

    def _features(self, h, path):
        if self.kind == "low_rank":
            return nn.Dense(self.rank, name=named("reduced", path))(h)
        if self.kind == "mixture":
            return nn.softmax(nn.Dense(self.rank, name=named("mixing", path))(h))
        return h


def encode(coefficients: jax.Array, encoding: str) -> jax.Array:
    """What the hypernetwork sees of `(K,)` coefficients in [0, 1].

    "coefficients" are the paper's input. On the "circle" each coefficient c is [cos(pi c / 2), sin(pi c / 2)], `(2 K,)` in
    all, whose norm does not depend on lambda, so that neither do the sizes of the initial features and of their gradients
    (Gonzalez Ortiz, Guttag and Dalca, 2024; the other half of their proposal, theta = theta_0 + change, is how all heads
    here are).

    Raises:
        InputError: for an unknown encoding.
    """
    if encoding not in ENCODINGS:
        raise InputError(f"`encoding` must be one of {', '.join(ENCODINGS)}, got {encoding!r}.")
    if encoding == "coefficients":
        return coefficients
    angle = jnp.pi / 2 * coefficients
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)])


def named(what: str, path: Path) -> str:
    """The name of a layer, and so of its parameters, that belongs to the leaf at `path`."""
    return f"{what}:{'.'.join(path)}"


def head_name(path: Path) -> str:
    """The name of the head that generates the leaf at `path`."""
    return named("head", path)


def is_sharded(path: tuple[str, ...], shape: tuple[int, ...], devices: int) -> bool:
    """Whether the leaf of a tree of the hypernetwork's parameters is spread over so many devices, along its last axis.

    Args:
        path: names of the leaf, in any tree that holds such parameters, such as the optimizer's state.
        shape: of the whole leaf.
    """
    return any(name.startswith("head:") for name in path) and len(shape) > 0 and shape[-1] % devices == 0


def generate_sharded(hypernet: HyperNet, params: Tree, coefficients: jax.Array, axis: str) -> dict[Path, jax.Array]:
    """The generated leaves of this device's samples, where each device has a part of the heads; one exchange for all.

    Args:
        hypernet: the module.
        params: its parameters, the leaves that `is_sharded` of n devices says being the n-th parts.
        coefficients: `(B, K)` of the whole batch, B/n samples to each device, in the devices' order.
        axis: the mapped axis of the n devices.

    Returns:
        `{path: (B/n, *shape)}`. What is pulled back is the gradient of the whole batch for the parts of heads, and this
        device's share of a sum over the devices for all other parameters.
    """
    devices = jax.lax.axis_size(axis)
    size = len(coefficients) // devices
    start = jax.lax.axis_index(axis) * size
    features: Any = jax.vmap(lambda c: hypernet.apply({"params": params}, c, heads=False))(coefficients)
    leaves, parts = {}, {}
    for path, shape in hypernet.leaves:
        head = params[head_name(path)]
        if is_sharded((head_name(path),), (math.prod(shape),), devices):
            parts[path] = features[path] @ head["kernel"] + head["bias"][None]
        else:
            mine = jax.lax.dynamic_slice_in_dim(features[path], start, size)
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


def with_dense_heads(hypernet: HyperNet, params: Tree) -> tuple[HyperNet, Tree]:
    """The hypernetwork of dense heads that generates what one of low-rank heads does, and its parameters.

    W (P h + p) + theta_0 = (W P) h + (W p + theta_0).
    """
    dense = {name: layer for name, layer in params.items() if name.startswith("hidden")}
    for path, _ in hypernet.leaves:
        head, reduced = params[head_name(path)], params[named("reduced", path)]
        dense[head_name(path)] = {
            "kernel": reduced["kernel"] @ head["kernel"],
            "bias": reduced["bias"] @ head["kernel"] + head["bias"],
        }
    return hypernet.clone(kind="dense"), dense


def init(key: jax.Array, hypernet: HyperNet, *, num_coefficients: int, target: dict[Path, jax.Array]) -> Tree:
    """Initialise so that the generated network starts well for every lambda.

    A head is theta = theta_0 + W f. Its bias theta_0 starts as the target's own initial leaf, its W such that the part that
    depends on lambda has about the root mean square of that leaf, times `1/2`. (PyTorch's default, which the authors use,
    makes the generated weights' size depend on d instead, and relies on batch norm to mend it.)

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
