"""The training step: the state, the settings, and the compiled function that takes one step of Algorithm 1.

A training step is a pure function of the state and the images (the key is in `Setup`). It has three parts:

1. Draw the batch (`_draw_batch`): which images, the noise of their measurements, and a lambda for each.
2. Compute the loss and its gradient with `gradient.value_and_grad`, which is also public as `hr.value_and_grad`.
3. Update the parameters with the optimizer (`_update`).

`make_step` compiles the three parts. `loop.py` takes one training step after the other.

Reproducibility. All random numbers of step i come from `fold_in(key, i)`. They are drawn for the whole batch, and each
device then takes its shard. So neither an interruption nor the number of devices changes the random numbers.

Several devices. Parts 1 and 2 run inside `jax.shard_map`, each device on its shard of the batch. The hypernetwork's heads,
which are nearly all of the parameters, are sharded, and so are their optimizer states (`hypernet.generate_sharded`). All
other arrays are replicated. The devices exchange the weights of their samples, the gradients with respect to these weights,
the gradients of replicated parameters, and the statistics of batch norm. They never exchange activations. By default DHS
selects the same number of samples on each device, so the selection depends on the number of devices. `BatchPlan` can change
that.

Microbatches. On a CPU, a device computes one separable sample at a time, forward and backward. The activations of one
sample fit in the processor's cache. A step then takes 0.75 times as long as with the whole batch at once.

Ensembles. All members (`model.Model`) see the same images and the same noise, and each takes a step of its own. So each
member becomes the same network as if it were trained alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from hyperrecon_jax.data.feed import batch_indices  # the order of images is drawn in the step
from hyperrecon_jax.losses.objective import Objective
from hyperrecon_jax.models.hypernet import is_sharded_head
from hyperrecon_jax.models.model import Model, train_main
from hyperrecon_jax.physics.acquisition import sample_conditions
from hyperrecon_jax.physics.problem import Measurement, Problem
from hyperrecon_jax.physics.sample import Sample, take
from hyperrecon_jax.runtime import memory
from hyperrecon_jax.runtime.mesh import (
    DEVICE,
    REPLICATED,
    SAMPLE_AXIS,
    SHARDED,
    device_mesh,
    local_shard,
    place,
    shardings,
)
from hyperrecon_jax.training.gradient import BatchPlan, is_separable, value_and_grad

Tree = Any


class TrainState(NamedTuple):
    """The values that change from step to step."""

    step: jax.Array  # () int32, the number of steps done
    params: Tree
    batch_stats: Tree
    opt_state: Tree


class Setup(NamedTuple):
    """The constants of a training: what to train and how."""

    model: Model
    objective: Objective
    problem: Problem
    sample_lam: Callable[[jax.Array, tuple[int, int]], jax.Array]  # key, (n, K-1) -> lambdas
    optimizer: optax.GradientTransformation
    batch: int  # the number of samples in a batch, on all devices together
    key: jax.Array
    keep: int  # the number of samples of a batch that DHS selects; UHS if it equals `batch`
    rank: str = "absolute"  # kind of DHS score (`dhs.dhs_score`)
    members_at_once: int = 1  # number of members of an ensemble computed at a time; divides the number of members
    plan: BatchPlan = BatchPlan()  # `microbatch=None`: chosen by `microbatch_size`


# (state, samples) -> (state, logs, selected_lams)
Step = Callable[[TrainState, Sample], tuple[TrainState, dict[str, jax.Array], jax.Array]]


def initial_state(model: Model, variables: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step, from the model's initial variables."""
    params = variables["params"]
    opt_state = jax.vmap(optimizer.init)(params) if model.members else optimizer.init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, variables["batch_stats"], opt_state)


def count_members_at_once(model: Model, net_inputs: jax.ShapeDtypeStruct, variables: Tree) -> int:
    """The number of members of an ensemble to compute at a time; it divides the number of members.

    On an accelerator: as many as half of the free memory can hold. On a CPU: one, because its activations fit in the
    cache: a step is 1.4 times as fast as with five members at once (64 x 64, batch 8, two cores).

    Args:
        model, variables: the ensemble.
        net_inputs: the shape of the inputs that one device computes with each member in a step, `(n, h, w, c)`.
    """
    if jax.default_backend() == "cpu":
        return 1
    network = model._replace(members=())
    first = jax.tree.map(lambda leaf: leaf[0], variables)

    def forward(theta, batch):
        def forward_one(net_input):
            return train_main(network, theta, first["batch_stats"], net_input, batch_axes=(SAMPLE_AXIS,))[0]

        return jax.vmap(forward_one, axis_name=SAMPLE_AXIS)(batch)

    member_bytes = memory.backward_bytes(forward, first["params"]["main"], net_inputs)
    limit = memory.free_bytes() // (2 * member_bytes)  # 2: at most half of the free memory
    count = len(model.members)
    return max(n for n in range(1, count + 1) if count % n == 0 and (n == 1 or n <= limit))


def uses_dhs(setup: Setup) -> bool:
    """Whether DHS selects a part of each batch; otherwise all samples are selected, which is UHS."""
    return setup.keep < setup.batch


def split_key(setup: Setup) -> tuple[jax.Array, jax.Array]:
    """The key for the order of the images (`data.feed`), and the key for all other random numbers of a step."""
    key_order, key_step = jax.random.split(setup.key)
    return key_order, key_step


def training_mesh(setup: Setup) -> Mesh:
    """The devices for a training: as many as divide the batch, and `keep` too if DHS selects on each device."""
    sizes = (setup.batch, setup.keep) if setup.plan.rank_over == "device" else (setup.batch,)
    return device_mesh(*sizes)


def place_state(mesh: Mesh, state: TrainState) -> TrainState:
    """The state on the devices: the hypernetwork's heads and their optimizer states sharded, all others replicated."""
    return place(mesh, state, partition_specs(mesh, state))


def partition_specs(mesh: Mesh, tree: Tree) -> Tree:
    """The `PartitionSpec` of each leaf of a state, or of a part of a state."""

    def spec(path, leaf):
        # DictKey has .key; an index of a NamedTuple stays as it is
        names = tuple(str(getattr(key, "key", key)) for key in path)
        if not is_sharded_head(names, leaf.shape, mesh.devices.size):
            return REPLICATED
        return PartitionSpec(*[None] * (len(leaf.shape) - 1), DEVICE)

    return jax.tree_util.tree_map_with_path(spec, tree)


def microbatch_size(setup: Setup, batch_stats: Tree, mesh: Mesh) -> int:
    """The number of samples that a device computes at a time.

    The value of the plan, if it has one. Otherwise 1 on a CPU if the batch can be split, else all samples of the device. A
    batch cannot be split with batch norm, nor with DHS if the samples are coupled.
    """
    size = setup.batch // mesh.devices.size
    if setup.plan.microbatch is not None:
        return min(setup.plan.microbatch, size)
    can_split = not jax.tree.leaves(batch_stats) and (is_separable(setup.model, batch_stats) or not uses_dhs(setup))
    return 1 if mesh.devices.flat[0].platform == "cpu" and can_split else size


def make_step(setup: Setup, mesh: Mesh, *, resident: bool) -> jax.stages.Wrapped:
    """The compiled step (Algorithm 1).

    Args:
        setup: what to train.
        mesh: the devices, those of `training_mesh(setup)` or fewer.
        resident: True: the step receives the whole data set, replicated, and draws the batch from it. False: it receives
            the batch, `SHARDED` over the mesh.

    Returns:
        `(state, samples) -> (state, logs, selected_lams)`. The state, from `place_state`, is donated: its buffers are
        reused. The logs are those of `gradient.BatchSummary` and "grad_norm"; for an ensemble, means over its members.
        `selected_lams` are the lambdas of the selected samples, `(keep, K-1)`; for an ensemble `(keep * members, K-1)`.
    """

    def step(state: TrainState, samples: Sample):
        specs = partition_specs(mesh, state)
        sharded_gradient = jax.shard_map(
            partial(_gradient_on_device, setup, mesh, resident),
            mesh=mesh,
            in_specs=(REPLICATED, specs.params, REPLICATED, REPLICATED if resident else SHARDED),
            out_specs=(REPLICATED, REPLICATED, REPLICATED, specs.params),
            # off: the custom batching rules and the loop of conv.py lose the varying-axis types that this check needs
            check_vma=False,
        )
        batch_stats, logs, selected_lams, grad = sharded_gradient(state.step, state.params, state.batch_stats, samples)
        update = partial(_update, setup.optimizer)
        if setup.model.members:
            update = jax.vmap(update)
        params, opt_state, grad_norm = update(grad, state.opt_state, state.params)
        logs = {name: jnp.mean(values) for name, values in {**logs, "grad_norm": grad_norm}.items()}
        state = TrainState(state.step + 1, params, batch_stats, opt_state)
        return jax.lax.with_sharding_constraint(state, shardings(mesh, specs)), logs, selected_lams

    return jax.jit(step, donate_argnums=0)


# The parts of a step. The first three run on each device, inside `jax.shard_map`.


def _gradient_on_device(
    setup: Setup, mesh: Mesh, resident: bool, step: jax.Array, params: Tree, batch_stats: Tree, samples: Sample
) -> tuple[Tree, dict[str, jax.Array], jax.Array, Tree]:
    """The new running statistics, the logs, the selected lambdas, and the gradient; for an ensemble, of each member."""
    key_lam, samples, y, conditions = _draw_batch(setup, resident, step, samples)
    plan = setup.plan._replace(microbatch=microbatch_size(setup, batch_stats, mesh))
    network_gradient = partial(_network_gradient, setup, plan, samples, y)
    if not setup.model.members:
        # an ensemble draws no lambda
        lam = setup.sample_lam(key_lam, (setup.batch, len(setup.objective.terms) - 1))
        if conditions is not None:
            lam = jnp.concatenate([lam, conditions], 1)
        return network_gradient(params, batch_stats, lam)

    def member_gradient(member):
        params, batch_stats, lam = member
        return network_gradient(params, batch_stats, jnp.broadcast_to(lam[None], (setup.batch, *lam.shape)))

    lams = jnp.asarray(setup.model.members, jnp.float32)
    members = params, batch_stats, lams
    batch_stats, logs, selected_lams, grad = jax.lax.map(member_gradient, members, batch_size=setup.members_at_once)
    return batch_stats, logs, selected_lams.reshape(-1, lams.shape[-1]), grad


def _draw_batch(
    setup: Setup, resident: bool, step: jax.Array, samples: Sample
) -> tuple[jax.Array, Sample, Measurement, jax.Array | None]:
    """The key of the batch's lambdas, this device's samples and their measurements, and the conditions of the batch."""
    key_order, key_step = split_key(setup)
    key_lam, key_noise, key_condition = jax.random.split(jax.random.fold_in(key_step, step), 3)
    if resident:
        indices = batch_indices(key_order, step, count=len(samples.image), batch=setup.batch)
        samples = take(samples, local_shard(indices))
    keys = local_shard(jax.random.split(key_noise, setup.batch))
    ranges = setup.problem.acquisitions
    if ranges is None:
        return key_lam, samples, jax.vmap(setup.problem.observe)(keys, samples), None
    conditions = sample_conditions(key_condition, ranges, setup.batch)
    y = jax.vmap(setup.problem.observe)(keys, samples, local_shard(conditions))
    return key_lam, samples, y, conditions


def _network_gradient(
    setup: Setup, plan: BatchPlan, samples: Sample, y: Measurement, params: Tree, batch_stats: Tree, lam: jax.Array
) -> tuple[Tree, dict[str, jax.Array], jax.Array, Tree]:
    """As `_gradient_on_device`, for one network. `lam` is of the whole batch; samples and measurements are the shard."""
    summary, grad = value_and_grad(
        setup.model._replace(members=()),
        setup.objective,
        setup.problem,
        params,
        batch_stats,
        lam,
        samples,
        y,
        keep=setup.keep,
        rank=setup.rank,
        plan=plan,
        device_axis=DEVICE,
    )
    selected_lams = lam[:, : len(setup.objective.terms) - 1]  # without the conditions behind it
    if uses_dhs(setup):
        selected_lams = selected_lams[jnp.nonzero(summary.selected, size=setup.keep)[0]]  # size: a fixed shape under jit
    return summary.batch_stats, summary.logs, selected_lams, grad


def _update(
    optimizer: optax.GradientTransformation, grad: Tree, opt_state: Tree, params: Tree
) -> tuple[Tree, Tree, jax.Array]:
    """The new parameters, the new state of the optimizer, and the norm of the gradient."""
    # The barrier keeps the norm apart. Otherwise the norm and Adam share the squares of the gradient, and a CPU stores
    # them, which takes longer than all of Adam.
    grad_norm = optax.tree.norm(jax.lax.optimization_barrier(grad))
    updates, opt_state = optimizer.update(grad, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, grad_norm
