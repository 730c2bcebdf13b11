"""Training: the state and the compiled step; `loop.py` takes one step after the other.

A step is a pure function of the state and the images. All that is random in step i (which images, their lambdas, their
noise) comes from `fold_in(key, i)`, drawn for the whole batch and then cut, so that neither an interruption nor the
number of devices changes what is drawn.

The batch is spread over the devices of a mesh by `shard_map`. The hypernetwork's heads, nearly all of the parameters, and
the optimizer's state of them are sharded over them (`hypernet.generate_sharded`); all else is on every device. What the
devices exchange is the weights of their samples and the gradient of these, the gradient of what all have, and, with batch
norm, the statistics of each layer; never activations. By default DHS ranks the samples of each device and takes as many
from each, so that it depends on the number of devices; `Plan` has the other choice.

On a CPU a device puts one sample at a time through the network, forward and backward, where samples are not coupled: what
one sample needs stays in the cache, and a step takes three quarters of the time.

The members of an ensemble (`model.Model`) all see the same images and noise, each takes a step of its own, and as many are
trained at once as memory has room for: each becomes what it would have become alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import stages
from jax.sharding import Mesh, PartitionSpec

from hyperrecon_jax.data.feed import batch_indices
from hyperrecon_jax.losses.objective import Objective
from hyperrecon_jax.models.hypernet import is_sharded
from hyperrecon_jax.models.model import Model, generate_sharded, train_main
from hyperrecon_jax.physics.problem import Problem
from hyperrecon_jax.physics.sample import Sample, take
from hyperrecon_jax.runtime import memory
from hyperrecon_jax.runtime.mesh import DEVICE, REPLICATED, SHARDED, device_mesh, place, shardings
from hyperrecon_jax.training.gradient import Plan, of_weights, separable

Tree = Any


class TrainState(NamedTuple):
    """All that training carries from step to step."""

    step: jax.Array  # () int32, steps done
    params: Tree
    batch_stats: Tree
    opt_state: Tree


class Setup(NamedTuple):
    """All that stays the same during training."""

    model: Model
    objective: Objective
    problem: Problem
    sample_lam: Callable[[jax.Array, tuple[int, int]], jax.Array]  # key, (n, K-1) -> lambdas
    optimizer: optax.GradientTransformation
    batch: int
    key: jax.Array
    keep: int  # DHS: how many samples of a batch count; `batch` of them: UHS
    rank: str = "absolute"  # DHS: by what they are ranked (`gradient.dhs_score`)
    together: int = 1  # members of an ensemble that are trained at once, a divisor of their number
    plan: Plan = Plan()  # how each device works through its part of the batch; `microbatch=None`: what suits the backend


Step = Callable[[TrainState, Sample], tuple[TrainState, dict[str, jax.Array], jax.Array]]


def initial_state(model: Model, variables: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step, from the model's initial variables."""
    params = variables["params"]
    opt_state = jax.vmap(optimizer.init)(params) if model.members else optimizer.init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, variables["batch_stats"], opt_state)


def members_together(model: Model, images: jax.ShapeDtypeStruct, variables: Tree) -> int:
    """How many members of an ensemble are trained at once, a divisor of their number.

    On an accelerator as many as half of the free memory has room for. On a CPU one: what one member holds stays in the
    cache, and a step is 1.4 times as fast as with five (64 x 64, batch 8, two cores).

    Args:
        model, variables: the ensemble.
        images: the shape of what one device puts through each network in a step, `(n, h, w, c)`.
    """
    if jax.default_backend() == "cpu":
        return 1
    alone = model._replace(members=())
    one = jax.tree.map(lambda leaf: leaf[0], variables)

    def forward(theta, images):
        return jax.vmap(
            lambda y: train_main(alone, theta, one["batch_stats"], y, batch_axes=("sample",))[0], axis_name="sample"
        )(images)

    room = memory.free_bytes() // (2 * memory.backward_bytes(forward, one["params"]["main"], images))
    return max(n for n in range(1, len(model.members) + 1) if len(model.members) % n == 0 and (n == 1 or n <= room))


def uses_dhs(setup: Setup) -> bool:
    """Whether DHS leaves some samples of a batch out (otherwise it is UHS)."""
    return setup.keep < setup.batch


def keys(setup: Setup) -> tuple[jax.Array, jax.Array]:
    """The key of the images' order (`data.feed`), and the one of all else that is random in a step."""
    key_order, key_step = jax.random.split(setup.key)
    return key_order, key_step


def mesh_of(setup: Setup) -> Mesh:
    """The devices of a training: as many as divide the batch, and what DHS keeps of it if each device keeps as many."""
    return device_mesh(setup.batch, *([setup.keep] if setup.plan.rank_over == "device" else []))


def place_state(mesh: Mesh, state: TrainState) -> TrainState:
    """The state on the mesh: the hypernetwork's heads and what the optimizer knows of them in parts, all else as copies."""
    return place(mesh, state, specs(mesh, state))


def specs(mesh: Mesh, tree: Tree) -> Tree:
    """How each leaf of a state, or of a part of it, lies on the mesh."""

    def spec(path, leaf):
        names = tuple(str(getattr(key, "key", key)) for key in path)
        cut = is_sharded(names, leaf.shape, mesh.devices.size)
        return PartitionSpec(*[None] * (len(leaf.shape) - 1), DEVICE) if cut else REPLICATED

    return jax.tree_util.tree_map_with_path(spec, tree)


def microbatch(setup: Setup, batch_stats: Tree, mesh: Mesh) -> int:
    """How many samples a device puts through the network at a time, where the plan does not say.

    On a CPU one, unless the samples are coupled or DHS has to hold all of them; elsewhere all.
    """
    size = setup.batch // mesh.devices.size
    if setup.plan.microbatch is not None:
        return min(setup.plan.microbatch, size)
    uncoupled = not jax.tree.leaves(batch_stats) and (separable(setup.model, batch_stats) or not uses_dhs(setup))
    return 1 if mesh.devices.flat[0].platform == "cpu" and uncoupled else size


def make_step(setup: Setup, mesh: Mesh, *, resident: bool) -> stages.Wrapped:
    """The compiled step (Algorithm 1).

    Args:
        setup: what to train.
        mesh: the devices, of `mesh_of(setup)` or fewer.
        resident: the step's samples are the whole data set, on every device, and the batch is drawn inside; otherwise they
            are the batch itself, `SHARDED` over the mesh.

    Returns:
        `(state, samples) -> (state, logs, used)`. The state, of `place_state`, is donated: its buffers are reused. Logs:
        those of `gradient.Counted` and "grad_norm", means over the members of an ensemble. Used are the lambdas that count,
        `(keep, K-1)`, for an ensemble `(keep * members, K-1)`.
    """
    devices = mesh.devices.size
    network = setup.model._replace(members=())  # one of an ensemble
    key_order, key_step = keys(setup)

    def mine(of_batch):
        size = setup.batch // devices
        return jax.lax.dynamic_slice_in_dim(of_batch, jax.lax.axis_index(DEVICE) * size, size)

    def local_gradient(laid, step, params, batch_stats, samples: Sample):
        key_lam, key_noise = jax.random.split(jax.random.fold_in(key_step, step))
        if resident:
            count = len(samples.image)
            samples = take(samples, mine(batch_indices(key_order, step, count=count, batch=setup.batch)))
        shape = setup.batch, len(setup.objective.terms) - 1
        y = jax.vmap(setup.problem.observe)(mine(jax.random.split(key_noise, setup.batch)), samples)

        def of_network(params, batch_stats, lam):
            """Of all lambdas of the batch, `(B, K-1)`."""

            theta, pull_back = jax.vjp(lambda params: generate_sharded(network, params, lam, DEVICE), params)
            counted, grad_theta = of_weights(
                network,
                setup.objective,
                setup.problem,
                theta,
                batch_stats,
                mine(lam),
                samples,
                y,
                keep=setup.keep,
                rank=setup.rank,
                plan=setup.plan._replace(microbatch=microbatch(setup, batch_stats, mesh)),
                device_axis=DEVICE,
            )
            used = lam
            if uses_dhs(setup):
                size = len(counted.counts)
                at = jax.lax.axis_index(DEVICE) * size
                everywhere = jax.lax.dynamic_update_slice_in_dim(jnp.zeros(setup.batch), counted.counts, at, 0)
                used = lam[jnp.nonzero(jax.lax.psum(everywhere, DEVICE), size=setup.keep)[0]]
            (grad,) = pull_back(grad_theta)
            grad = jax.tree.map(lambda leaf, spec: leaf if DEVICE in spec else jax.lax.psum(leaf, DEVICE), grad, laid)
            return counted.batch_stats, counted.logs, used, grad

        if not setup.model.members:
            return of_network(params, batch_stats, setup.sample_lam(key_lam, shape))

        def member(given):
            (*trees, lam) = given
            return of_network(*trees, jnp.broadcast_to(lam[None], (setup.batch, *lam.shape)))

        lams = jnp.asarray(setup.model.members, jnp.float32)
        stats, logs, used, grad = jax.lax.map(member, (params, batch_stats, lams), batch_size=setup.together)
        return stats, logs, used.reshape(-1, lams.shape[-1]), grad

    def step(state: TrainState, samples: Sample):
        laid = specs(mesh, state)
        # check_vma off: the batching rules of conv.py and its loop do not carry the types that it checks
        spread = jax.shard_map(
            partial(local_gradient, laid.params),
            mesh=mesh,
            in_specs=(REPLICATED, laid.params, REPLICATED, REPLICATED if resident else SHARDED),
            out_specs=(REPLICATED, REPLICATED, REPLICATED, laid.params),
            check_vma=False,
        )
        stats, logs, used, grad = spread(state.step, state.params, state.batch_stats, samples)

        def advance(grad, opt_state, params):
            # apart: where the two share the squares of the gradient, a CPU stores them, which takes longer than all of Adam
            norm = optax.tree.norm(jax.lax.optimization_barrier(grad))
            updates, opt_state = setup.optimizer.update(grad, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, norm

        every = jax.vmap(advance) if setup.model.members else advance
        params, opt_state, norm = every(grad, state.opt_state, state.params)
        logs = {name: jnp.mean(values) for name, values in {**logs, "grad_norm": norm}.items()}
        state = TrainState(state.step + 1, params, stats, opt_state)
        return jax.lax.with_sharding_constraint(state, shardings(mesh, laid)), logs, used

    return jax.jit(step, donate_argnums=0)
