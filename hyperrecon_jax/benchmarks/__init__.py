"""How fast the compiled parts are on this machine: suites of cases, each case beside its reference and its floor.

    SUITES  their names
    run     times one suite and gives its rows
    table   the rows as text

`timing.py` says how things are timed, `floor.py` what the floor is.
"""

import os
from collections.abc import Callable, Iterator

import jax

from hyperrecon_jax.benchmarks import against_peer, convolutions, feed, floor, landscape, startup, steps
from hyperrecon_jax.benchmarks.networks import Scale
from hyperrecon_jax.benchmarks.timing import Candidate, Row, measure, memory_held, table

__all__ = ["QUICK", "SUITES", "Row", "Scale", "machine", "memory_held", "run", "table"]

CANDIDATES: dict[str, Callable[[Scale], Iterator[Candidate]]] = {
    "conv": convolutions.candidates,
    "train": steps.train,
    "dhs": steps.dhs,
    "landscape": landscape.candidates,
    "feed": feed.candidates,
    "peer": against_peer.candidates,
}
SUITES = (*CANDIDATES, "startup")
QUICK = ("conv", "train", "dhs", "landscape")  # that need nothing but this package, and no other processes
STARTS = 3  # of Python at most


def run(suite: str, scale: Scale, *, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """The rows of one of `SUITES`; `say` is told of the progress.

    Raises:
        InputError: for `peer` without PyTorch.
    """
    if suite == "startup":
        return startup.measure(scale, rounds=min(rounds, STARTS), say=say)
    return measure(suite, CANDIDATES[suite](scale), rounds=rounds, rates=floor.rates, say=say)


def machine() -> str:
    """What this machine can do, the rates behind the floors, and how busy it is with other things."""
    load = os.getloadavg()[0]  # before ours
    rates, device = floor.rates("float32"), jax.devices()[0].device_kind
    able = f"{rates.flops / 1e9:.0f} GF/s in float32 matrix products, {rates.bytes / 1e9:.0f} GB/s copied"
    return f"{jax.local_device_count()} devices ({device}): {able}; {os.cpu_count()} cores, load {load:.1f} before"
