"""Time candidates in one process, in alternation, and put each beside the reference of its case and beside its floor.

A machine that is shared or throttled slows all candidates of a case alike: the ratios hold where the seconds do not.
"""

import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from hyperrecon_jax.benchmarks.floor import Rates, Work, floor

PAUSE = 0.05  # seconds before each call: threads of the call before spin in wait of work, for up to 10 ms (PyTorch)


class Candidate(NamedTuple):
    """Something to time. The first of a case is the reference of that case."""

    case: str
    implementation: str
    run: Callable[[], Any]  # starts a call and waits for its end
    peak_bytes: int | None = None  # as `Row.peak_bytes`
    work: Work | None = None  # what a call cannot do without
    images: int | None = None  # that a call works on
    tolerance: float | None = None  # how far what `run` returns may be from what the reference returns; None: not compared
    most: int | None = None  # rounds at most, for what is slow


class Row(NamedTuple):
    """One measurement."""

    suite: str
    case: str
    implementation: str
    seconds: float  # median of a call
    ratio: float  # to the first implementation of the same case
    floor_fraction: float | None = None  # floor_seconds / seconds: 1 is as fast as this machine can be
    floor_seconds: float | None = None  # None: no floor is known
    bound: str | None = None  # what sets the floor, "arithmetic" or "memory"
    peak_bytes: int | None = None  # arguments, results and temporaries of the compiled program, on each device
    rate: float | None = None
    unit: str | None = None  # of the rate


def measure(
    suite: str,
    candidates: Iterable[Candidate],
    *,
    rounds: int,
    rates: Callable[[str], Rates],
    say: Callable[[str], None],
) -> list[Row]:
    """Time the candidates of each case one after the other, `rounds` times over, after a first call that does not count.

    What candidates return is compared in the first two calls: a step's second shows what its first did to the state.

    Args:
        suite: its name, for the rows.
        candidates: those of a case in succession; a case is made, timed and dropped before the next one.
        rounds: calls of each that count, unless it says how many at most.
        rates: of this machine, by dtype (`floor.rates`).
        say: is told of the progress.

    Raises:
        RuntimeError: if a candidate does not agree with its reference, which is a defect of one of them.
    """
    rows = []
    for case, group in itertools.groupby(candidates, key=lambda candidate: candidate.case):
        members = list(group)
        say(f"{suite}, {case}: {len(members)} compiled")
        took = _alternate(members, rounds)
        medians = [statistics.median(seconds) for seconds in took]
        rows += [_row(suite, c, median, medians[0], rates) for c, median in zip(members, medians, strict=True)]
        del members
    return rows


def _alternate(members: list[Candidate], rounds: int) -> list[list[float]]:
    took: list[list[float]] = [[] for _ in members]
    for i in range(rounds + 1):
        results = []
        for candidate, seconds in zip(members, took, strict=True):
            if i > (candidate.most or rounds):
                continue
            time.sleep(PAUSE)
            start = time.perf_counter()
            result = candidate.run()
            if i:
                seconds.append(time.perf_counter() - start)
            results.append((candidate, result))
        if i < 2:
            _compare(results)
    return took


def _compare(results: list[tuple[Candidate, Any]]) -> None:
    """Each leaf of what a candidate returned, relative to the largest entry of the reference's."""
    reference = results[0][1]
    for candidate, result in results[1:]:
        if candidate.tolerance is None:
            continue
        for ours, theirs in zip(jax.tree.leaves(reference), jax.tree.leaves(result), strict=True):
            ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
            off = np.max(np.abs(ours - theirs)) / np.max(np.abs(ours))
            if not off <= candidate.tolerance:
                name, expected = candidate.implementation, results[0][0].implementation
                raise RuntimeError(f"{candidate.case}: {name} is off by {off:.1e} from {expected}.")


def _row(suite: str, candidate: Candidate, seconds: float, reference: float, rates: Callable[[str], Rates]) -> Row:
    row = Row(
        suite, candidate.case, candidate.implementation, seconds, seconds / reference, peak_bytes=candidate.peak_bytes
    )
    if candidate.work is not None:
        least, bound = floor(candidate.work, rates(candidate.work.dtype))
        row = row._replace(floor_seconds=least, floor_fraction=least / seconds, bound=bound)
    if candidate.images is not None:
        return row._replace(rate=candidate.images / seconds, unit="images/s")
    if candidate.work is not None:
        return row._replace(rate=candidate.work.flops / seconds / 1e9, unit="GF/s")
    return row


def memory_held() -> int:
    """Bytes at the peak so far: of an accelerator, the fullest; on a CPU, of this process with all its devices."""
    of_devices = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    unit = 1 if sys.platform == "darwin" else 1024
    return max(of_devices) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def table(rows: list[Row]) -> str:
    """The rows as text."""
    wide = (
        max((len(row.case) for row in rows), default=0) + 2,
        max((len(row.implementation) for row in rows), default=0) + 2,
    )
    lines = [
        f"{'case':<{wide[0]}}{'implementation':<{wide[1]}}{'seconds':>9}{'ratio':>8}  {'of the floor':<18}"
        f"{'rate':<19}{'peak MiB':>8}"
    ]
    for row in rows:
        of_floor = "" if row.floor_fraction is None else f"{row.floor_fraction:6.1%} {row.bound}"
        rate = "" if row.rate is None else f"{row.rate:.4g} {row.unit}"
        peak = "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}"
        lines.append(
            f"{row.case:<{wide[0]}}{row.implementation:<{wide[1]}}{row.seconds:9.4f}{row.ratio:8.2f}  {of_floor:<18}"
            f"{rate:<19}{peak:>8}"
        )
    return "\n".join(lines)
