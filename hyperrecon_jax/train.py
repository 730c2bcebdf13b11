"""Training: the state, the compiled step, the loop.

A step is a pure function of the state and the images. All that is random in step i (which images, their lambdas, their
noise) comes from `fold_in(key, i)`, drawn for the whole batch and then cut, so that neither an interruption nor the
number of devices changes what is drawn.

The batch is spread over the devices of a mesh by `shard_map`; each holds the whole model, and what they exchange is the
gradient (and, with batch norm, the statistics of each layer). DHS ranks the samples of each device and takes as many from
each, so that it, alone, depends on the number of devices.

The members of an ensemble (`model.Model`) all see the same images and noise, each takes a step of its own, and as many are
trained at once as memory has room for: each becomes what it would have become alone.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hyperrecon_jax import hosts, memory
from hyperrecon_jax.data.feed import batch_indices
from hyperrecon_jax.errors import Diverged, InputError
from hyperrecon_jax.model import Model, train_main
from hyperrecon_jax.objective import Objective, value_and_grad
from hyperrecon_jax.problem import Problem
from hyperrecon_jax.sample import Sample, take

Tree = Any
DEVICE = "device"
REPLICATED, SPREAD = PartitionSpec(), PartitionSpec(DEVICE)


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
    rank: str = "absolute"  # DHS: by what they are ranked (`objective.misfit`)
    together: int = 1  # members of an ensemble that are trained at once, a divisor of their number


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

    room = memory.free() // (2 * memory.of_backward(forward, one["params"]["main"], images))
    return max(n for n in range(1, len(model.members) + 1) if len(model.members) % n == 0 and (n == 1 or n <= room))


def leaves_out(setup: Setup) -> bool:
    """Whether DHS leaves some samples of a batch out (otherwise it is UHS)."""
    return setup.keep < setup.batch


def keys(setup: Setup) -> tuple[jax.Array, jax.Array]:
    """The key of the images' order (`data.feed`), and the one of all else that is random in a step."""
    key_order, key_step = jax.random.split(setup.key)
    return key_order, key_step


def device_mesh(*sizes: int) -> Mesh:
    """The largest number of devices that divides the sizes: the batch, and what DHS keeps of it.

    As many of each host, in the order of the hosts, so that each has one part of what is spread.

    Raises:
        InputError: if the number of hosts does not divide the sizes.
    """
    here, count = jax.local_device_count(), hosts.count()
    each = max((n for n in range(1, here + 1) if math.gcd(*sizes) % (n * count) == 0), default=0)
    if not each:
        raise InputError(f"config.train.batch and config.dhs.keep must be multiples of the number of hosts, {count}.")
    chosen = [device for host in range(count) for device in [d for d in jax.devices() if d.process_index == host][:each]]
    return Mesh(np.array(chosen), (DEVICE,), axis_types=(AxisType.Auto,))


def place(mesh: Mesh, tree: Tree, spec: PartitionSpec = REPLICATED) -> Tree:
    """A tree of arrays, known to each host, on the mesh: a copy on each device, or cut along the first axis (`SPREAD`)."""
    return hosts.put(tree, NamedSharding(mesh, spec))


def place_part(mesh: Mesh, tree: Tree) -> Tree:
    """A tree of arrays, each host's own part of a batch, as the whole batch, `SPREAD` over the mesh."""
    if hosts.count() == 1:
        return place(mesh, tree, SPREAD)
    sharding = NamedSharding(mesh, SPREAD)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), tree)


def make_step(setup: Setup, mesh: Mesh, *, resident: bool) -> Step:
    """The compiled step (Algorithm 1).

    Args:
        setup: what to train.
        mesh: the devices; their number divides `setup.batch` and `setup.keep`. DHS takes the same number from each.
        resident: the step's samples are the whole data set, on every device, and the batch is drawn inside; otherwise they
            are the batch itself, `SPREAD` over the mesh.

    Returns:
        `(state, samples) -> (state, logs, used)`. The state is donated: its buffers are reused. Logs: those of
        `objective.value_and_grad` and "grad_norm", means over the members of an ensemble. Used are the lambdas that count,
        `(keep, K-1)`, for an ensemble `(keep * members, K-1)`.
    """
    devices = mesh.devices.size
    network = setup.model._replace(members=())  # one of an ensemble
    key_order, key_step = keys(setup)

    def mine(of_batch):
        size = setup.batch // devices
        return jax.lax.dynamic_slice_in_dim(of_batch, jax.lax.axis_index(DEVICE) * size, size)

    def local_step(state: TrainState, samples: Sample):
        key_lam, key_noise = jax.random.split(jax.random.fold_in(key_step, state.step))
        if resident:
            count = len(samples.image)
            samples = take(samples, mine(batch_indices(key_order, state.step, count=count, batch=setup.batch)))
        shape = setup.batch, len(setup.objective.terms) - 1
        y = jax.vmap(setup.problem.observe)(mine(jax.random.split(key_noise, setup.batch)), samples)

        def advance(state, lam):
            (stats, logs, counted), grad = value_and_grad(
                network,
                setup.objective,
                setup.problem,
                state.params,
                state.batch_stats,
                lam,
                samples,
                y,
                keep=setup.keep // devices,
                rank=setup.rank,
                device_axis=DEVICE,
            )
            updates, opt_state = setup.optimizer.update(grad, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            state = TrainState(state.step + 1, params, stats, opt_state)
            return state, {**logs, "grad_norm": optax.tree.norm(grad)}, lam[counted]

        if not setup.model.members:
            return advance(state, mine(setup.sample_lam(key_lam, shape)))

        def member(given):
            (*trees, lam) = given
            return advance(TrainState(state.step, *trees), jnp.broadcast_to(lam[None], (len(samples.image), *lam.shape)))

        lams = jnp.asarray(setup.model.members, jnp.float32)
        states, logs, used = jax.lax.map(member, (*state[1:], lams), batch_size=setup.together)
        mean = {name: jnp.mean(values) for name, values in logs.items()}
        return states._replace(step=state.step + 1), mean, used.reshape(-1, lams.shape[-1])

    # check_vma off: the batching rules of conv.py and its loop do not carry the types that it checks
    spread = jax.shard_map(
        local_step,
        mesh=mesh,
        in_specs=(REPLICATED, REPLICATED if resident else SPREAD),
        out_specs=(REPLICATED, REPLICATED, SPREAD),
        check_vma=False,
    )
    return jax.jit(spread, donate_argnums=0)


def fit(
    step: Step,
    state: TrainState,
    samples: Iterable[Sample],
    *,
    steps: int,
    log_every: int,
    save_every: int,
    on_log: Callable[[int, dict[str, float], np.ndarray], None],
    on_save: Callable[[TrainState], None],
    stop: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Run until `steps` steps are done in all, or until `stop`.

    Args:
        step: from `make_step`.
        state: where to go on; its step counts.
        samples: what `step` takes, one item a step.
        steps: when to end.
        log_every: steps between calls of `on_log(step, means, used)`, with the means of the logs and the lambdas that
            counted in the m steps since the last call, `(m, keep, K-1)`; it is called after the first step, too.
        save_every: steps between calls of `on_save(state)`.
        on_log: called first, so that a state that diverged is never saved.
        on_save: also called when `stop` ends the run, and at the end.
        stop: asked before every step.

    Returns:
        The state after the last step.

    Raises:
        Diverged: at the end of the logging interval in which loss or gradient stopped being finite; names the step.
    """
    first = done = int(state.step)
    since: list[tuple[dict[str, jax.Array], jax.Array]] = []

    def flush():
        if since:
            rows, used = zip(*jax.device_get(hosts.local(since)), strict=True)
            for i, row in enumerate(rows, start=done - len(rows) + 1):
                if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
                    raise Diverged(f"the loss or its gradient is not finite at step {i} (loss {row['loss']:.4g})")
            on_log(done, {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}, np.stack(used))
            since.clear()

    saved = done
    supply = iter(samples)
    while done < steps and not stop():
        state, logs, used = step(state, next(supply))
        if since:
            jax.block_until_ready(since[-1])  # one step ahead of the devices is enough, and Ctrl-C stays quick
        since.append((logs, used))
        done += 1
        if done % log_every == 0 or done == first + 1:  # the first step compiles: say that it works, start the clock
            flush()
        if done % save_every == 0:
            flush()
            on_save(state)
            saved = done
    flush()
    if saved != done:
        on_save(state)
    return state
