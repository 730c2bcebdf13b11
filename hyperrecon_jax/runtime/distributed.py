"""Several hosts that work as one: what they agree on, what only the first does, and how all end when one ends.

Each host runs the same program, of which JAX makes one (`jax.distributed`): `jax.devices()` are those of all hosts, and an
array may be spread over them. All must therefore do the same in the same order; whatever may differ from host to host, such
as what a disk holds, how much memory is free or whether Ctrl-C was pressed, is asked of one and told to the others. They
talk through the key-value store of JAX's coordinator, which the first host runs. The folders of runs are on a file system
that all of them share. On a single host every function here is as good as absent.
"""

import contextlib
import itertools
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from hyperrecon_jax.runtime.errors import Diverged, InputError

T = TypeVar("T")
Tree = Any
AUTO = "auto"
WAIT = 300  # seconds for all hosts to come together
HEARTBEAT = 60  # seconds after which JAX ends all hosts if one of them says nothing
FAREWELL = 3  # seconds that a host which ends waits for the others to have heard why
EVER = 10**10  # milliseconds
ENDED = "hyperrecon/ended"
LOST = re.compile("gloo|nccl|rccl|coordination service|connection|socket", re.IGNORECASE)

_threads: list[threading.Thread] = []  # that wait for what other hosts say
_leaving = threading.Lock()  # held by the thread that ends this host
_turns = (
    itertools.count()
)  # of `broadcast_from_primary` and `any_asks`: the same on all hosts, and so names what they talk about


def process_count() -> int:
    """How many hosts there are: processes, strictly."""
    return jax.process_count()


def is_primary() -> bool:
    """Whether this is the first host: the one that talks to the user and writes the files."""
    return jax.process_index() == 0


@contextlib.contextmanager
def joined(coordinator: str | None, processes: int | None, process: int | None) -> Iterator[None]:
    """Join the other hosts, before anything runs on JAX; inside, when one ends with an error, all do, and else all wait.

    Args:
        coordinator: "ADDRESS:PORT" of the first host; "auto": JAX finds out all three (Slurm, Open MPI, Kubernetes, TPU
            pods); None: there is one host.
        processes: how many hosts there are.
        process: which of them this is, from 0.

    Raises:
        InputError: if these do not fit one another, or the hosts do not come together in `WAIT` seconds.
    """
    _check(coordinator, processes, process)
    if coordinator is None:
        yield
        return
    # With it on, JAX takes SIGTERM for itself, and a host could not be ended by it outside of training.
    jax.config.update("jax_enable_preemption_service", False)
    start: dict[str, Any] = {"initialization_timeout": WAIT + 60, "heartbeat_timeout_seconds": HEARTBEAT}
    if coordinator != AUTO:
        start |= {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
        start["cluster_detection_method"] = "deactivate"  # or it would take one device of each host, under Slurm
    late = threading.Timer(WAIT, _late, [coordinator])  # JAX itself would abort with a stack trace
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(**start)
        jax.devices()  # all hosts take part in finding them, and one that ends early must not wait for that
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        why = str(error).split("\n")[0]
        if coordinator == AUTO and "efined" in why:
            why = "no Slurm, Open MPI, Kubernetes or TPU pod was found"
        elif "RPC server" in why:
            why = "this host cannot serve at that port, which may be in use"
        raise InputError(f"The hosts cannot come together by --coordinator {coordinator}: {why}.") from error
    finally:
        late.cancel()
    _aside(_watch)
    try:
        with ending():
            yield
            _client().wait_at_barrier("hyperrecon/end", EVER)
    finally:
        jax.distributed.shutdown()  # wakes those threads, which must not meet the end of Python in the middle of a call
        for thread in _threads:
            thread.join()


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """An error inside ends this host at once, and the others with it; on a single host it is an error as ever.

    Not a `Diverged`, which all hosts see at the same step.
    """
    try:
        yield
    except Diverged:
        raise
    except BaseException as error:
        if process_count() > 1:
            _end(error)
        raise


def broadcast_from_primary(ask: Callable[[], T]) -> T:
    """What `ask()` gives on the first host, which alone is asked; something that JSON holds."""
    if process_count() == 1:
        return ask()
    key = f"hyperrecon/broadcast_from_primary/{next(_turns)}"
    if is_primary():
        _client().key_value_set(key, json.dumps(ask()))
    return json.loads(_client().blocking_key_value_get(key, EVER))


def run_on_primary(do: Callable[..., T], *args: Any, **options: Any) -> T | None:
    """`do(*args, **options)` on the first host, nothing on the others; none waits for another."""
    return do(*args, **options) if is_primary() else None


def run_primary_first(make: Callable[[], T]) -> T:
    """`make()` on each host, on the first before the others, so that they find on a shared disk what it left there."""
    if is_primary():
        made = make()
        broadcast_from_primary(lambda: None)
        return made
    broadcast_from_primary(lambda: None)
    return make()


def any_asks(asked: Callable[[], bool]) -> Callable[[], bool]:
    """A question that all hosts answer alike each time they ask it: true once `asked()` was true on one of them.

    Each must ask it as often as the others, before each step, say. They are a step or two apart, and none waits for another
    before one has asked. Then each says how far it will go at most, and all go as far as the farthest.
    """
    if process_count() == 1:
        return asked
    key, client = f"hyperrecon/asked/{next(_turns)}", _client()
    changed = threading.Condition()
    times, limit, end, told = 0, EVER, 0, False

    def settle():  # in a thread, so that a host answers while it waits for a step that needs the others
        nonlocal limit, end
        with contextlib.suppress(Exception):  # the run has ended, unasked
            client.blocking_key_value_get(key, EVER)
            with changed:
                limit = times + 1
            client.key_value_set(f"{key}/{jax.process_index()}", str(limit))
            limits = [int(client.blocking_key_value_get(f"{key}/{i}", EVER)) for i in range(process_count())]
            with changed:
                end = max(limits)
                changed.notify()

    def answer():
        nonlocal times, told
        if asked() and not told:
            told = True
            client.key_value_set(key, "", allow_overwrite=True)
        with changed:
            times += 1
            changed.wait_for(lambda: times < limit or end)
            return bool(end) and times >= end

    _aside(settle)
    return answer


def put(tree: Tree, shardings: Tree) -> Tree:
    """A tree of arrays, whole and the same on each host, on devices of all of them.

    Args:
        tree: arrays.
        shardings: a `NamedSharding` of all, or a tree of one for each.
    """
    if process_count() == 1:
        return jax.device_put(tree, shardings)

    def of_leaf(leaf, sharding):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        leaf = np.asarray(leaf)
        # not device_put, which would send all of it around to compare
        return jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__)

    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(of_leaf, tree, shardings)


def local(tree: Tree) -> Tree:
    """A tree of which each host has all of every array; those that are spread over hosts are gathered, by all of them."""

    def of_leaf(leaf):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if not leaf.is_fully_replicated:
            leaf = jax.device_put(leaf, NamedSharding(leaf.sharding.mesh, PartitionSpec()))
        return leaf.addressable_data(0)

    return jax.tree.map(of_leaf, tree)


def _aside(wait):
    """Call a function that waits for other hosts in a thread."""
    _threads.append(threading.Thread(target=wait, daemon=True))
    _threads[-1].start()


def _check(coordinator, processes, process):
    """Raise `InputError` if the three do not fit one another."""
    address, _, port = (coordinator or "").rpartition(":")
    if coordinator in (None, AUTO):
        if processes is not None or process is not None:
            raise InputError("--processes and --process need the first host's address: --coordinator ADDRESS:PORT.")
    elif not (address and port.isdigit() and 0 < int(port) < 2**16):
        raise InputError(f"--coordinator must be {AUTO} or ADDRESS:PORT of the first host, got {coordinator}.")
    elif processes is None or process is None:
        raise InputError(
            "--coordinator ADDRESS:PORT needs --processes, how many hosts there are, and --process, which this is."
        )
    elif not 0 <= process < processes:
        raise InputError(f"--process must be in [0, {processes}), the number of --processes, got {process}.")


def _client():
    """The way to the coordinator and its key-value store, which JAX has no public one for."""
    from jax._src import distributed

    if distributed.global_state.client is None:
        raise InputError(f"This is one of {process_count()} hosts: start the command on each of them with --coordinator.")
    return distributed.global_state.client


def _late(coordinator):
    """In a thread: the others have not come."""
    print(
        f"error: The hosts did not come together by --coordinator {coordinator} in {WAIT} s.", file=sys.stderr, flush=True
    )
    os._exit(2)


def _watch():
    """In a thread: end this host when another one has."""
    try:
        host, status, why = json.loads(_client().blocking_key_value_get(ENDED, EVER))
    except Exception:  # all have come to their end; or the first host is gone, and JAX or a collective will say so
        return
    if _leaving.acquire(blocking=False):
        _leave(status, f"Host {host} ended: {why}", wait=is_primary())


def _end(error: BaseException) -> None:
    """Say why this host ends, and have the others end, too."""
    if not _leaving.acquire(blocking=False):
        time.sleep(2 * FAREWELL)  # until this host has ended
    status, why = {InputError: 2, KeyboardInterrupt: 130}.get(type(error), 1), str(error)
    if isinstance(error, KeyboardInterrupt):
        why = "interrupted."
    elif not isinstance(error, InputError):
        why = f"{type(error).__name__}: {next(iter(why.splitlines()), '')}"
        if LOST.search(why):
            why = f"Another host ended or cannot be reached; the same command goes on from the last checkpoint. ({why})"
        else:
            traceback.print_exception(error)
    with contextlib.suppress(Exception):  # another was quicker
        _client().key_value_set(ENDED, json.dumps([jax.process_index(), status, why]))
    _leave(status, why, wait=True)


def _leave(status, why, *, wait):
    """End this host, without any of the ways of Python or JAX to wait for the others.

    One that others still need, to hear why or to talk at all, waits until they have heard.
    """
    print(f"error: {why}", file=sys.stderr, flush=True)
    with contextlib.suppress(Exception):  # some have gone already
        _client().key_value_set(f"{ENDED}/{jax.process_index()}", "")
        until = time.monotonic() + FAREWELL
        for host in range(process_count() if wait else 0):
            _client().blocking_key_value_get(f"{ENDED}/{host}", max(1, int(1000 * (until - time.monotonic()))))
    time.sleep(is_primary())  # the last to go, since without it JAX aborts the others
    os._exit(status)
