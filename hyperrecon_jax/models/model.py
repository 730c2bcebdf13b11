"""HyperRecon, the paper's `x_hat = M[H(lambda)](y)`, as pure functions (Sec. IV-A).

`Model` holds two stateless networks and no numbers. The numbers are the `variables`, a plain tree:

    {"params": {"hyper": phi, "main": leaves of M that are learned, not generated}, "batch_stats": running statistics}

Every function here treats ONE image and ONE lambda; `jax.vmap` them over images, over lambda, over both.
"""

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

from hyperrecon_jax.models import hypernet
from hyperrecon_jax.models.hypernet import HyperNet, Path
from hyperrecon_jax.models.hyperparams import coefficients
from hyperrecon_jax.runtime.errors import InputError

Tree = Any


class Model(NamedTuple):
    """A main network and the hypernetwork that generates its weights; or main networks that learn their own.

    An ensemble has a network at each of some lambdas (the baselines of Sec. V-C). Its variables are those of one network
    with a leading axis of members, `{"params": {"hyper": {}, "main": (members, ...)}, "batch_stats": (members, ...)}`.
    """

    main: Any  # an `nn.Module`; None: a tree of parameters alone (`condition`)
    hyper: HyperNet | None = None  # None: nothing is generated, a network for one lambda
    members: tuple[tuple[float, ...], ...] = ()  # the lambdas of an ensemble's members


class Weights(NamedTuple):
    """theta of some samples, `{path: leaf}`: what is learned is the same for all, what is generated is each one's own."""

    shared: Tree
    own: Tree  # with a leading axis of samples


def all_but_norms(path: Path) -> bool:
    """The paper's choice of generated leaves: kernels and biases of convolutions, not the scale and bias of a norm."""
    return not any("norm" in name for name in path)


def only_norms(path: Path) -> bool:
    """The choice of FiLM (Perez et al., 2018): the scale and bias of each norm's channels; convolutions are learned."""
    return not all_but_norms(path)


def matching(*patterns: str) -> Callable[[Path], bool]:
    """A choice of generated leaves by their paths: those that match any of the patterns.

    Args:
        patterns: as of a shell, on names joined by "/": "*" for all, "up1_*" with "head/*" for the last layers,
            "*/kernel" for kernels alone.

    Returns:
        A function of a path, for the `generated` of `init` and `condition`.
    """
    return lambda path: any(fnmatchcase("/".join(path), pattern) for pattern in patterns)


def init(
    key: jax.Array,
    main: nn.Module,
    example: jax.Array,
    *,
    num_terms: int,
    hyper_width: int | None,
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
        example: an input of `main`, for its shape alone, `(h, w, 2)` for a U-Net.
        num_terms: K, the number of loss terms.
        hyper_width: d, the width of the hypernetwork; None for a plain network without one.
        members: `(m, K-1)`, the lambdas of an ensemble of m plain networks. All start from the same weights: those of the
            plain network of this key.
        generated: tells from a leaf's path whether the hypernetwork generates it or it is learned directly.
        kind, rank, encoding: of the hypernetwork (`HyperNet`).

    Returns:
        The model and its variables.

    Raises:
        InputError: if there is a hypernetwork and `generated` chooses nothing for it; or for what `HyperNet` cannot be.
    """
    options = {"kind": kind, "rank": rank, "encoding": encoding}
    shapes = jax.eval_shape(main.init, key, example)["params"]
    hyper = _hypernet(shapes, hyper_width, generated, **options) if hyper_width else None

    @jax.jit
    def variables(key):
        key_main, key_hyper = jax.random.split(key)
        target = main.init(key_main, example)
        params = _conditioned(key_hyper, hyper, num_terms, target["params"])
        return {"params": params, "batch_stats": target.get("batch_stats", {})}

    if members is None:
        return Model(main, hyper), variables(key)
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
    """Any tree of parameters made a function of lambda: `generate_weights(model, params, lam)` is a tree like `theta`.

    For networks that are no Flax modules, or are applied in ways of their own. At first what is generated is near `theta`
    for every lambda, so that a network that was trained already can be gone on from.

    Args:
        key: PRNG key.
        theta: a nested dict of arrays, the initial parameters.
        num_terms, hyper_width, generated, kind, rank, encoding: as for `init`.

    Returns:
        A model without main network, and `{"hyper": phi, "main": the leaves of theta that are learned directly}`.

    Raises:
        InputError: if `theta` is no nested dict of arrays with names for keys, or `generated` chooses none of them.
    """
    leaves = flatten_dict(theta) if isinstance(theta, dict) else {}
    wrong = [
        path for path, leaf in leaves.items() if not (all(isinstance(n, str) for n in path) and hasattr(leaf, "shape"))
    ]
    if wrong or not leaves:
        found = f"{wrong[0]} in it" if wrong else f"a {type(theta).__name__}"
        raise InputError(f"`theta` must be a nested dict of arrays with names for keys, got {found}.")
    hyper = _hypernet(theta, hyper_width, generated, kind=kind, rank=rank, encoding=encoding)
    return Model(None, hyper), jax.jit(partial(_conditioned, hyper=hyper, num_terms=num_terms))(key, theta=theta)


def _hypernet(theta, width, generated, **options):
    """For a tree of parameters, or of their shapes."""
    shapes = flatten_dict(theta)
    chosen = tuple((path, leaf.shape) for path, leaf in shapes.items() if generated(path))
    if not chosen:
        raise InputError(f"`generated` must choose a leaf at least, got none of {', '.join(map('/'.join, shapes))}.")
    return HyperNet(chosen, width, **options)


def _conditioned(key, hyper, num_terms, theta):
    """The initial parameters, where `hyper` generates a part of theta."""
    leaves = flatten_dict(theta)
    if hyper is None:
        return {"hyper": {}, "main": theta}
    taken = {path: leaves.pop(path) for path, _ in hyper.leaves}
    phi = hypernet.init(key, hyper, num_coefficients=num_terms, target=taken)
    return {"hyper": phi, "main": unflatten_dict(leaves)}


def generate_weights(model: Model, params: Tree, lam: jax.Array) -> Tree:
    """theta = H_phi(lambda): every parameter of the main network for one lambda.

    Args:
        model: the networks.
        params: `variables["params"]`.
        lam: `(K-1,)` in [0, 1]; the hypernetwork sees its K loss coefficients (Eqs. 9, 10).

    Returns:
        The main network's parameter tree, generated and learned leaves together.
    """
    if model.hyper is None:
        return params["main"]
    leaves: Any = model.hyper.apply({"params": params["hyper"]}, coefficients(lam))
    return unflatten_dict(flatten_dict(params["main"]) | leaves)


def generate_per_sample(model: Model, params: Tree, lam: jax.Array) -> Weights:
    """As `generate_weights`, for n samples, `lam` being `(n, K-1)`; what they share is there once."""
    own: Any = {}
    if model.hyper is not None:
        own = jax.vmap(partial(model.hyper.apply, {"params": params["hyper"]}))(coefficients(lam))
    return Weights(flatten_dict(params["main"]), own)


def generate_sharded(model: Model, params: Tree, lam: jax.Array, axis: str) -> Weights:
    """As `generate_per_sample`, for the samples of one of several devices, each of which has a part of the hypernetwork.

    Args:
        model: the networks.
        params: this device's part of them (`hypernet.generate_sharded`).
        lam: `(B, K-1)`, of the whole batch.
        axis: the mapped axis of the n devices.

    Returns:
        The weights of B/n samples.
    """
    own = hypernet.generate_sharded(model.hyper, params["hyper"], coefficients(lam), axis) if model.hyper else {}
    return Weights(flatten_dict(params["main"]), own)


def whole(weights: Weights) -> Tree:
    """The main network's parameter tree, of weights whose `own` part is that of one sample."""
    return unflatten_dict(weights.shared | weights.own)


def network_at(model: Model, variables: Tree, lam: jax.Array) -> tuple[Tree, Tree]:
    """The main network for one lambda, whatever the model is: its weights theta and its running statistics.

    Of an ensemble, that of the member whose loss coefficients are nearest.
    """
    params, batch_stats = variables["params"], variables["batch_stats"]
    if not model.members:
        return generate_weights(model, params, lam), batch_stats
    distance = jnp.sum(jnp.square(coefficients(np.array(model.members)) - coefficients(lam)[None]), -1)
    return jax.tree.map(lambda leaf: leaf[jnp.argmin(distance)], (params["main"], batch_stats))


def without_norms(theta: Tree) -> Tree:
    """The part of theta that a penalty on the weights is about: kernels and biases, no norm's scale or bias (Eq. 11)."""
    return unflatten_dict({path: leaf for path, leaf in flatten_dict(theta).items() if all_but_norms(path)})


def apply_main(model: Model, theta: Tree, batch_stats: Tree, y: jax.Array) -> jax.Array:
    """x_hat = M_theta(y) with running statistics, for weights that are already generated: `(h, w, 2) -> (h, w, 1)`."""
    x_hat: Any = model.main.apply({"params": theta, "batch_stats": batch_stats}, y)
    return x_hat


def train_main(
    model: Model, theta: Tree, batch_stats: Tree, y: jax.Array, *, batch_axes: tuple[str, ...]
) -> tuple[jax.Array, Tree]:
    """As `apply_main`, with the statistics of the batch over the mapped axes `batch_axes`; also the new running ones."""
    options = {"batch_axes": batch_axes} if jax.tree.leaves(batch_stats) else {}  # a network of yours need not know of it
    x_hat, updated = model.main.apply({"params": theta, "batch_stats": batch_stats}, y, mutable=["batch_stats"], **options)
    return x_hat, updated.get("batch_stats", {})


def reconstruct(model: Model, variables: Tree, lam: jax.Array, y: jax.Array) -> jax.Array:
    """`x_hat = M[H(lambda)](y)`, one image and one lambda: `(K-1,), (h, w, 2) -> (h, w, 1)`."""
    return apply_main(model, *network_at(model, variables, lam), y)


def count_parameters(params: Tree) -> int:
    """Numbers in a tree of arrays."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
