"""HyperRecon, the paper's `x_hat = M[H(lambda)](y)`, as pure functions (Sec. IV-A).

`Model` holds two stateless networks and no numbers. The numbers are the `variables`, a plain tree:

    {"params": {"hyper": phi, "main": leaves of M that are learned, not generated}, "batch_stats": running statistics}

and, for a model with conditions, the "condition" for which it is evaluated (`at_condition`).

Where lambda becomes weights: `generate_weights` for one lambda, `generate_batch` for those of a batch.

Except for `generate_batch` every function treats ONE image and ONE lambda; `jax.vmap` them over images, over lambda, over
both. `net_input` is what the main network receives, `Problem.to_net_input` of a measurement y. For a U-Net it is
`(h, w, 2)`, the real and imaginary part of the zero-filled image; for an unrolled network a `PhysicsInput`.
"""

import inspect
import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import ArrayLike

from hyperrecon_jax.models import hypernet
from hyperrecon_jax.models.hypernet import HyperNet, Path
from hyperrecon_jax.models.hyperparams import coefficients
from hyperrecon_jax.physics.net_input import NetInput
from hyperrecon_jax.runtime.errors import InputError

Tree = Any


class Model(NamedTuple):
    """A main network and the hypernetwork that generates its weights; or main networks that learn their own weights.

    An ensemble has one member, a main network of its own, for each of several lambdas (the baselines of Sec. V-C). Its
    variables are those of one network with a leading axis of members,
    `{"params": {"hyper": {}, "main": (members, ...)}, "batch_stats": (members, ...)}`.
    """

    main: Any  # an `nn.Module`; None: there is only a tree of parameters (`condition`)
    hyper: HyperNet | None = None  # None: nothing is generated, this is a network for one lambda
    members: tuple[tuple[float, ...], ...] = ()  # the lambdas of an ensemble's members
    num_conditions: int = 0  # further inputs of the hypernetwork, in [0, 1], such as those of an acquisition


class Weights(NamedTuple):
    """The weights theta of a batch of samples, in two parts `{path: leaf}` (`merge_weights` makes a tree of them)."""

    shared: Tree  # the learned leaves, the same for all samples
    per_sample: Tree  # the generated leaves, with a leading axis of samples


def all_but_norms(path: Path) -> bool:
    """True for the leaves that the paper generates: kernels and biases of convolutions, not scale and bias of a norm."""
    return not any("norm" in name for name in path)


def only_norms(path: Path) -> bool:
    """True for the leaves that FiLM generates (Perez et al., 2018): scale and bias of norms; convolutions are learned."""
    return not all_but_norms(path)


def matching(*patterns: str) -> Callable[[Path], bool]:
    """A function that is True for the leaves whose path matches any of the patterns.

    Args:
        patterns: as in a shell, for names joined by "/": "*" for all, "up1_*" and "head/*" for the last layers, "*/kernel"
            for kernels only.

    Returns:
        A function of a path, for the argument `generated` of `init` and `condition`.
    """
    return lambda path: any(fnmatchcase("/".join(path), pattern) for pattern in patterns)


def init(
    key: jax.Array,
    main: nn.Module,
    example: NetInput,
    *,
    num_terms: int,
    hyper_width: int | None,
    num_conditions: int = 0,
    members: np.ndarray | None = None,
    generated: Callable[[Path], bool] = all_but_norms,
    kind: str = "dense",
    rank: int = 4,
    encoding: str = "coefficients",
) -> tuple[Model, Tree]:
    """A model for any target network, and its initial variables.

    Args:
        key: PRNG key.
        main: the target network; `main.init(key, example)` gives its parameter tree.
        example: an example input of `main`; only its shapes are used: `(h, w, 2)` for a U-Net, a `PhysicsInput` for an
            unrolled network.
        num_terms: K, the number of loss terms.
        hyper_width: d, the width of the hypernetwork; None for a plain network without one.
        num_conditions: the number of further inputs of the hypernetwork, beside the loss coefficients
            (`acquisition.encode`). A lambda for `generate_weights` then has these behind its K-1 entries; for all other
            functions they are the entry "condition" of the variables (`at_condition`).
        members: `(m, K-1)`, the lambdas of an ensemble of m plain networks. All start from the same weights, those that a
            plain network has with this key.
        generated: returns for a leaf's path whether the hypernetwork generates the leaf; otherwise it is learned directly.
        kind: of the hypernetwork's heads (`HyperNet`).
        rank: of low-rank heads, or the number of mixed kernels (`HyperNet`).
        encoding: of the hypernetwork's input (`HyperNet`).

    Returns:
        The model and its variables.

    Raises:
        InputError: if there is a hypernetwork and `generated` chooses no leaf, or for an argument that `HyperNet` refuses.
    """
    options = {"kind": kind, "rank": rank, "encoding": encoding}
    init_main = jax.jit(main.init)  # traced once for the shapes and for the values
    shapes = init_main.eval_shape(key, example)["params"]
    hyper = _make_hypernet(shapes, hyper_width, generated, **options) if hyper_width else None

    @jax.jit
    def variables(key):
        key_main, key_hyper = jax.random.split(key)
        target = init_main(key_main, example)
        params = _initial_params(key_hyper, hyper, num_terms + num_conditions, target["params"])
        return {"params": params, "batch_stats": target.get("batch_stats", {})}

    if members is None:
        return Model(main, hyper, num_conditions=num_conditions), variables(key)
    copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(members), *leaf.shape)), variables(key))
    return Model(main, None, tuple(tuple(map(float, lam)) for lam in members)), copies


def condition(
    key: jax.Array,
    theta: Tree,
    *,
    num_terms: int,
    hyper_width: int,
    generated: Callable[[Path], bool] = all_but_norms,
    kind: str = "dense",
    rank: int = 4,
    encoding: str = "coefficients",
) -> tuple[Model, Tree]:
    """Make any tree of parameters a function of lambda: `generate_weights(model, params, lam)` is a tree like `theta`.

    For networks that are no Flax modules, or that are applied in a special way. Before training, the generated tree
    is near `theta` for every lambda. So the training of a network that has already learned something can continue from it.

    Args:
        key: PRNG key.
        theta: a nested dict of arrays, the initial parameters.
        num_terms: as for `init`.
        hyper_width: as for `init`.
        generated: as for `init`.
        kind: as for `init`.
        rank: as for `init`.
        encoding: as for `init`.

    Returns:
        A model without a main network, and `{"hyper": phi, "main": the leaves of theta that are learned directly}`.

    Raises:
        InputError: if `theta` is not a nested dict of arrays whose keys are names, or `generated` chooses no leaf.
    """
    leaves = flatten_dict(theta) if isinstance(theta, dict) else {}
    wrong = [
        path for path, leaf in leaves.items() if not (all(isinstance(n, str) for n in path) and hasattr(leaf, "shape"))
    ]
    if wrong or not leaves:
        actual = f"{wrong[0]} in it" if wrong else f"a {type(theta).__name__}"
        raise InputError(f"`theta` must be a nested dict of arrays with names for keys, got {actual}.")
    hyper = _make_hypernet(theta, hyper_width, generated, kind=kind, rank=rank, encoding=encoding)
    return Model(None, hyper), jax.jit(partial(_initial_params, hyper=hyper, num_terms=num_terms))(key, theta=theta)


def _make_hypernet(theta, width, generated, **options):
    """The hypernetwork for a tree of parameters, or of their shapes."""
    shapes = flatten_dict(theta)
    chosen = tuple((path, leaf.shape) for path, leaf in shapes.items() if generated(path))
    if not chosen:
        raise InputError(f"`generated` must choose a leaf at least, got none of {', '.join(map('/'.join, shapes))}.")
    return HyperNet(chosen, width, **options)


def _initial_params(key, hyper, num_terms, theta):
    """`{"hyper": phi, "main": learned leaves}`, where `hyper` generates the other leaves of theta."""
    leaves = flatten_dict(theta)
    if hyper is None:
        return {"hyper": {}, "main": theta}
    generated = {path: leaves.pop(path) for path, _ in hyper.leaves}
    phi = hypernet.init(key, hyper, num_coefficients=num_terms, target=generated)
    return {"hyper": phi, "main": unflatten_dict(leaves)}


def generate_weights(model: Model, params: Tree, lam: jax.Array) -> Tree:
    """theta = H_phi(lambda): every parameter of the main network for one lambda.

    Args:
        model: the networks.
        params: `variables["params"]`.
        lam: `(K-1,)` in [0, 1], and behind it the model's conditions, if it has any. The hypernetwork sees the K loss
            coefficients (Eqs. 9, 10) and the conditions.

    Returns:
        The main network's parameter tree, with its generated and its learned leaves.
    """
    if model.hyper is None:
        return params["main"]
    leaves: Any = model.hyper.apply({"params": params["hyper"]}, _hyper_input(model, lam))
    return unflatten_dict(flatten_dict(params["main"]) | leaves)


def generate_batch(model: Model, params: Tree, lam: jax.Array, device_axis: str | None = None) -> Weights:
    """As `generate_weights`, for a batch of lambdas. The learned leaves are not copied for each sample.

    Args:
        model: the networks.
        params: `variables["params"]`.
        lam: `(n, K-1)`, or `(n, K-1 + conditions)`.
        device_axis: inside `jax.shard_map`, the mapped axis over which the samples are sharded. `params` then has this
            device's shard of the hypernetwork's heads (`hypernet.generate_sharded`), and `lam` is that of the whole batch.

    Returns:
        The weights of the n samples; with `device_axis`, of this device's samples.
    """
    leaves: Any = {}
    if model.hyper is not None and device_axis is None:
        leaves = jax.vmap(partial(model.hyper.apply, {"params": params["hyper"]}))(_hyper_input(model, lam))
    elif model.hyper is not None and device_axis is not None:
        leaves = hypernet.generate_sharded(model.hyper, params["hyper"], _hyper_input(model, lam), device_axis)
    return Weights(flatten_dict(params["main"]), leaves)


def combine_gradients(model: Model, grad: Tree, device_axis: str) -> Tree:
    """The gradient of the whole batch with respect to `params`, from each device's vjp of `generate_batch`."""
    hyper = {}
    if model.hyper is not None:
        hyper = hypernet.combine_gradients(model.hyper, grad["hyper"], device_axis)
    return {"hyper": hyper, "main": jax.tree.map(lambda leaf: jax.lax.psum(leaf, device_axis), grad["main"])}


def merge_weights(weights: Weights) -> Tree:
    """The main network's parameter tree, for weights whose `per_sample` part is that of one sample."""
    return unflatten_dict(weights.shared | weights.per_sample)


def network_at(model: Model, variables: Tree, lam: jax.Array) -> tuple[Tree, Tree]:
    """The main network for one lambda, for any kind of model: its weights theta and its running statistics.

    For an ensemble, those of the member whose loss coefficients are nearest.

    Raises:
        InputError: if the model has conditions and the variables have none.
    """
    params, batch_stats = variables["params"], variables["batch_stats"]
    if not model.members:
        if model.num_conditions:
            if "condition" not in variables:
                raise InputError(
                    f"`variables` must have the {model.num_conditions} conditions of the model (`at_condition`), got none."
                )
            lam = jnp.concatenate([jnp.asarray(lam), variables["condition"]])
        return generate_weights(model, params, lam), batch_stats
    distance = jnp.sum(jnp.square(coefficients(np.array(model.members)) - coefficients(lam)[None]), -1)
    return jax.tree.map(lambda leaf: leaf[jnp.argmin(distance)], (params["main"], batch_stats))


def at_condition(variables: Tree, condition: ArrayLike) -> Tree:
    """The variables of a model with conditions, for one condition, such as that of an acquisition: `(num_conditions,)`."""
    return {**variables, "condition": jnp.asarray(condition, jnp.float32)}


def _hyper_input(model: Model, lam: ArrayLike) -> jax.Array:
    """The hypernetwork's input `(*b, K + conditions)`: loss coefficients, and the conditions behind lambda."""
    if not model.num_conditions:
        return coefficients(lam)
    lam = jnp.asarray(lam)
    split = lam.shape[-1] - model.num_conditions
    return jnp.concatenate([coefficients(lam[..., :split]), lam[..., split:]], -1)


def without_norms(theta: Tree) -> Tree:
    """The leaves of theta that a penalty on the weights uses (Eq. 11): kernels and biases, no norm's scale or bias."""
    return unflatten_dict({path: leaf for path, leaf in flatten_dict(theta).items() if all_but_norms(path)})


def apply_main(model: Model, theta: Tree, batch_stats: Tree, net_input: NetInput) -> jax.Array:
    """x_hat = M_theta(y) with the running statistics, for weights already generated, `(h, w, 1)`."""
    x_hat: Any = model.main.apply({"params": theta, "batch_stats": batch_stats}, net_input)
    return x_hat


def train_main(
    model: Model, theta: Tree, batch_stats: Tree, net_input: NetInput, *, batch_axes: tuple[str, ...]
) -> tuple[jax.Array, Tree]:
    """As `apply_main`, with the statistics of the batch over the mapped axes `batch_axes`.

    Returns x_hat and the new running statistics.
    """
    # a network without running statistics need not have this argument; one with them may take it as one of `**options`
    has_batch_axes = "batch_axes" in inspect.signature(type(model.main).__call__).parameters
    options = {"batch_axes": batch_axes} if has_batch_axes or jax.tree.leaves(batch_stats) else {}
    variables = {"params": theta, "batch_stats": batch_stats}
    x_hat, updated = model.main.apply(variables, net_input, mutable=["batch_stats"], **options)
    return x_hat, updated.get("batch_stats", {})


def reconstruct(model: Model, variables: Tree, lam: jax.Array, net_input: NetInput) -> jax.Array:
    """`x_hat = M[H(lambda)](y)`, one image `(h, w, 1)` and one lambda `(K-1,)`.

    It is compiled at its first call for a model and a size of images. A model whose networks cannot be hashed, such as one
    with an array among its settings, is computed operation by operation outside of `jax.jit`.
    """
    try:
        hash(model)
    except TypeError:
        return _forward(model, variables, lam, net_input)
    return _compiled_forward(model, variables, lam, net_input)


def _forward(model: Model, variables: Tree, lam: jax.Array, net_input: NetInput) -> jax.Array:
    return apply_main(model, *network_at(model, variables, lam), net_input)


_compiled_forward = jax.jit(_forward, static_argnums=0, inline=True)


def count_parameters(params: Tree) -> int:
    """The number of elements in a tree of arrays."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
