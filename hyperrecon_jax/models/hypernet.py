"""The hypernetwork H_phi: from a vector of loss coefficients to the parameter tree of ANY target network (Sec. IV, V-B).

Each generated leaf has a head, theta = theta_0 + W f, linear in the features f of that leaf. There are three kinds of
features:

- "dense", the paper's: f = h for all leaves, where h is the output of a fully connected trunk of four hidden layers with
  LeakyReLU(0.01);
- "low_rank": f = P h, a few numbers for each leaf. The head is then the product of two factors, W and P;
- "mixture": f is the softmax of a linear map of the coefficients; each leaf has its own map. W holds a few kernels; the
  softmax mixes them with weights above 0 that sum to 1. There is no trunk.

The target is described by the names and shapes of its leaves. This module does not know what the target computes.

Nearly all parameters are in the heads. Where a batch is sharded over devices, so is every head. Each device computes its
part of the weights for the whole batch, and the devices then exchange these parts (`generate_sharded`). So they exchange
weights of samples, and not the gradients of the heads, which have some hundred times as many numbers.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import ArrayLike

from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.mesh import local_shard

Tree = Any
Path = tuple[str, ...]
KINDS = ("dense", "low_rank", "mixture")
ENCODINGS = ("coefficients", "circle")


class HyperNet(nn.Module):
    """From loss coefficients to the generated leaves.

    Attributes:
        leaves: `(path, shape)` of each leaf to generate.
        width: units of each hidden layer of the trunk, the paper's d: 4, 32, 128 for HyperRecon-S, -M, -L.
        depth: the number of hidden layers.
        kind: the kind of features, one of `KINDS`.
        rank: the number of features of a leaf, unless "dense": the rank of its head, or how many kernels it mixes.
        encoding: the encoding of the input, one of `ENCODINGS` (`encode`).
    """

    leaves: tuple[tuple[Path, tuple[int, ...]], ...]
    width: int = 128
    depth: int = 4
    kind: str = "dense"
    rank: int = 4
    encoding: str = "coefficients"

    @nn.compact
    def __call__(self, coefficients: jax.Array, *, heads: bool = True) -> Any:
        """The generated leaves `{path: leaf}` for `(K,)` coefficients; without `heads` only the features, `{path: (m,)}`.

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
            return nn.Dense(self.rank, name=layer_name("reduced", path))(h)
        if self.kind == "mixture":
            return nn.softmax(nn.Dense(self.rank, name=layer_name("mixing", path))(h))
        return h


def encode(coefficients: jax.Array, encoding: str) -> jax.Array:
    """The input of the hypernetwork for `(K,)` coefficients in [0, 1].

    "coefficients" returns them unchanged, as in the paper. "circle" turns each coefficient c into
    [cos(pi c / 2), sin(pi c / 2)], `(2 K,)` in all. The norm of this vector is the same for every lambda, and so the sizes
    of the initial features and of their gradients do not depend on lambda (Gonzalez Ortiz, Guttag and Dalca, 2024). The
    other half of their proposal, theta = theta_0 + change, holds for all heads of this module.

    Raises:
        InputError: for an unknown encoding.
    """
    if encoding not in ENCODINGS:
        raise InputError(f"`encoding` must be one of {', '.join(ENCODINGS)}, got {encoding!r}.")
    if encoding == "coefficients":
        return coefficients
    angle = jnp.pi / 2 * coefficients
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)])


def layer_name(kind: str, path: Path) -> str:
    """The name of a layer and its parameters: kind (such as "head") and path of the leaf."""
    return f"{kind}:{'.'.join(path)}"


def head_name(path: Path) -> str:
    """The name of the head that generates the leaf at `path`."""
    return layer_name("head", path)


def is_sharded_head(path: tuple[str, ...], shape: tuple[int, ...], devices: int) -> bool:
    """Whether a leaf is sharded over the devices, along its last axis: a part of a head that divides evenly.

    Args:
        path: the names that lead to the leaf, in any tree that has the hypernetwork's parameters in it, such as the
            optimizer's state.
        shape: of the leaf as it is without sharding.
        devices: how many there are.
    """
    return any(name.startswith("head:") for name in path) and len(shape) > 0 and shape[-1] % devices == 0


def sharded_heads(hypernet: HyperNet, devices: int) -> set[str]:
    """The names of the heads that are sharded over the devices; the others are replicated."""
    names = {head_name(path): (math.prod(shape),) for path, shape in hypernet.leaves}
    return {name for name, shape in names.items() if is_sharded_head((name,), shape, devices)}


def generate_sharded(hypernet: HyperNet, params: Tree, coefficients: jax.Array, axis: str) -> dict[Path, jax.Array]:
    """The generated leaves of this device's samples, where the heads are sharded; for use inside `jax.shard_map`.

    Each device multiplies the features of the whole batch with its shard of the heads. One exchange for all heads then
    brings every part of a sample's weights to the device that has the sample.

    Args:
        hypernet: the module.
        params: its parameters, with this device's shard of the leaves for which `is_sharded_head` holds.
        coefficients: `(B, K)`, of the whole batch. Of n devices, the first has the first B/n samples, and so on.
        axis: the mapped axis of the n devices.

    Returns:
        `{path: (B/n, *shape)}`. The vjp of this function gives the gradient of the whole batch for sharded heads, and for
        all other parameters this device's term of a sum over the devices (`combine_gradients`).
    """
    devices = jax.lax.axis_size(axis)
    size = len(coefficients) // devices
    sharded = sharded_heads(hypernet, devices)
    features: Any = jax.vmap(lambda c: hypernet.apply({"params": params}, c, heads=False))(coefficients)
    leaves, parts = {}, {}
    for path, shape in hypernet.leaves:
        head = params[head_name(path)]
        if head_name(path) in sharded:
            parts[path] = features[path] @ head["kernel"] + head["bias"][None]
        else:
            local_features = local_shard(features[path], axis)
            leaves[path] = (local_features @ head["kernel"] + head["bias"][None]).reshape(size, *shape)
    if parts:
        exchanged = jax.lax.all_to_all(jnp.concatenate(list(parts.values()), 1), axis, 0, 0, tiled=True)
        columns = exchanged.reshape(devices, size, -1).swapaxes(0, 1)  # sample, device that computed the part, numbers
        ends = np.cumsum([part.shape[1] for part in parts.values()])
        shapes = dict(hypernet.leaves)
        # One split: its transpose is a concatenation. That of a slice for each leaf is a sum of arrays full of zeros.
        for path, part in zip(parts, jnp.split(columns, ends[:-1], axis=-1), strict=True):
            leaves[path] = part.reshape(size, *shapes[path])
    return leaves


def combine_gradients(hypernet: HyperNet, grad: Tree, axis: str) -> Tree:
    """The gradient of the whole batch with respect to the hypernetwork's parameters, from the vjp of `generate_sharded`."""
    sharded = sharded_heads(hypernet, jax.lax.axis_size(axis))
    return {name: layer if name in sharded else jax.lax.psum(layer, axis) for name, layer in grad.items()}


def to_dense_heads(hypernet: HyperNet, params: Tree) -> tuple[HyperNet, Tree]:
    """A hypernetwork with dense heads that generates the same as one with low-rank heads, and its parameters.

    W (P h + p) + theta_0 = (W P) h + (W p + theta_0).
    """
    dense = {name: layer for name, layer in params.items() if name.startswith("hidden")}
    for path, _ in hypernet.leaves:
        head, reduced = params[head_name(path)], params[layer_name("reduced", path)]
        dense[head_name(path)] = {
            "kernel": reduced["kernel"] @ head["kernel"],
            "bias": reduced["bias"] @ head["kernel"] + head["bias"],
        }
    return hypernet.clone(kind="dense"), dense


def fix_last_inputs(hypernet: HyperNet, params: Tree, values: ArrayLike) -> Tree:
    """The parameters of a hypernetwork that lacks the last inputs, and computes what this one does at fixed values of them.

    The first layers alone read the inputs. What the last ones add there goes into the bias.

    Args:
        hypernet: the module.
        params: its parameters.
        values: `(m,)`, of the last m inputs, such as the condition of an acquisition behind the loss coefficients.
    """
    if hypernet.kind == "mixture":
        first_layers = [layer_name("mixing", path) for path, _ in hypernet.leaves]
    else:
        first_layers = ["hidden0"]
    values = jnp.asarray(values, jnp.float32)
    parts = 2 if hypernet.encoding == "circle" else 1  # the encoding has one row of all inputs, or two: cosines, sines
    fixed = encode(values, hypernet.encoding).reshape(parts, -1)

    def fix(layer):
        kernel = layer["kernel"].reshape(parts, -1, layer["kernel"].shape[1])
        free, last = jnp.split(kernel, [kernel.shape[1] - len(values)], axis=1)
        return {"kernel": free.reshape(-1, kernel.shape[2]), "bias": layer["bias"] + jnp.einsum("pm,pmd->d", fixed, last)}

    return {**params, **{name: fix(params[name]) for name in first_layers}}


def init(key: jax.Array, hypernet: HyperNet, *, num_coefficients: int, target: dict[Path, jax.Array]) -> Tree:
    """Initial parameters such that the generated network starts well for every lambda.

    A head is theta = theta_0 + W f. Its bias theta_0 starts as the initial leaf of the target itself. Its W starts such
    that the part that depends on lambda has about half the root mean square of that leaf. (PyTorch's default, which the
    authors use, makes the size of the generated weights depend on d, and relies on batch norm to correct it.)

    Args:
        key: PRNG key.
        hypernet: the module.
        num_coefficients: K.
        target: `{path: leaf}`, the target network's own initial values of the leaves to generate.

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
