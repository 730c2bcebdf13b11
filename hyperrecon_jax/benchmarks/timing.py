"""Time candidates in one process, in alternation, and compare each with its reference and its floor.

If a machine is busy or throttled, all candidates of a case become slower by about the same factor. So the ratios are
reliable even where the seconds are not.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import special

from hyperrecon_jax.benchmarks.floor import Rates, Work, floor

PAUSE = 0.05  # seconds before each call: the threads of the last call keep spinning for up to 10 ms (PyTorch)


class Candidate(NamedTuple):
    """Something to time. The first candidate of a case is the reference of that case."""

    case: str
    implementation: str
    run: Callable[[], Any]  # makes one call and waits for its end
    peak_bytes: int | None = None  # as `Row.peak_bytes`
    work: Work | None = None  # the least work of a call
    images: int | None = None  # images that one call processes
    tolerance: float | None = None  # largest relative difference from the reference's result; None: no comparison
    max_rounds: int | None = None  # for slow candidates: fewer rounds than the others
    in_this_process: bool = True  # otherwise its processor time is unknown


class Call(NamedTuple):
    """One call of a candidate."""

    seconds: float
    cpu: float  # seconds of processor time of this process


class Row(NamedTuple):
    """One measurement."""

    suite: str
    case: str
    implementation: str
    seconds: float  # median of a call
    ratio: float  # to the seconds of the reference
    low: float  # the interval of the median (`percentile_interval`)
    high: float
    cpu_ratio: float | None = None  # of the processor time of this process, to that of the reference
    floor_fraction: float | None = None  # floor_seconds / seconds: 1 is as fast as this machine can be
    floor_seconds: float | None = None  # None: the floor is unknown
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
    """Time the candidates of each case in alternation for `rounds` rounds, after a first round that does not count.

    The results of the first two rounds are compared with the reference. The second round of a training step shows how the
    first changed the state.

    Args:
        suite: its name, for the rows.
        candidates: all candidates of one case must be adjacent; a case is built, timed and freed before the next one.
        rounds: timed calls of each candidate, unless `Candidate.max_rounds` is lower.
        rates: the rates of this machine for a dtype (`floor.measure_rates`).
        say: prints the progress.

    Raises:
        RuntimeError: if a candidate's result differs from the reference's; one of the two has a defect.
    """
    rows = []
    for case, group in itertools.groupby(candidates, key=lambda candidate: candidate.case):
        members = list(group)
        say(f"{suite}, {case}: {len(members)} compiled")
        durations = _time_alternating(members, rounds)
        rows += [_make_row(suite, c, calls, durations[0], rates) for c, calls in zip(members, durations, strict=True)]
        del members
    return rows


def percentile_interval(seconds: Sequence[float] | np.ndarray, percentile: float = 50) -> tuple[float, float]:
    """Return an interval that holds a percentile of a call, by default the median, with a probability of 90 % or more.

    The number of calls below the percentile is binomial, whatever the distribution of a call is. With too few calls,
    fewer than five for the median, there is no such interval; it is then from the smallest to the largest.
    """
    count = len(seconds)
    below, above = np.searchsorted(special.bdtr(np.arange(count + 1), count, percentile / 100), (0.05, 0.95))
    low, high = np.sort(seconds)[[max(below - 1, 0), min(above, count - 1)]]
    return float(low), float(high)


def _time_alternating(members: list[Candidate], rounds: int) -> list[list[Call]]:
    """Return each timed call, one list for each candidate."""
    durations: list[list[Call]] = [[] for _ in members]
    for i in range(rounds + 1):
        results = []
        for candidate, calls in zip(members, durations, strict=True):
            if i > (candidate.max_rounds or rounds):
                continue
            time.sleep(PAUSE)
            start, cpu_start = time.perf_counter(), time.process_time()
            result = candidate.run()
            if i:
                calls.append(Call(time.perf_counter() - start, time.process_time() - cpu_start))
            results.append((candidate, result))
        if i < 2:
            _check_agreement(results)
    return durations


def _check_agreement(results: list[tuple[Candidate, Any]]) -> None:
    """Compare each leaf of a result with the reference's leaf, relative to the largest entry of that leaf."""
    reference, expected_result = results[0]
    for candidate, result in results[1:]:
        if candidate.tolerance is None:
            continue
        for expected, actual in zip(jax.tree.leaves(expected_result), jax.tree.leaves(result), strict=True):
            expected, actual = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
            error = np.max(np.abs(expected - actual)) / np.max(np.abs(expected))
            if not error <= candidate.tolerance:  # also true for NaN
                raise RuntimeError(
                    f"{candidate.case}: {candidate.implementation} is off by {error:.1e} from {reference.implementation}."
                )


def _make_row(
    suite: str, candidate: Candidate, calls: list[Call], reference: list[Call], rates: Callable[[str], Rates]
) -> Row:
    seconds, cpu = (statistics.median(values) for values in zip(*calls, strict=True))
    reference_seconds, reference_cpu = (statistics.median(values) for values in zip(*reference, strict=True))
    row = Row(
        suite,
        candidate.case,
        candidate.implementation,
        seconds,
        seconds / reference_seconds,
        *percentile_interval([call.seconds for call in calls]),
        cpu_ratio=cpu / reference_cpu if candidate.in_this_process and reference_cpu else None,
        peak_bytes=candidate.peak_bytes,
    )
    if candidate.work is not None:
        floor_seconds, bound = floor(candidate.work, rates(candidate.work.dtype))
        row = row._replace(floor_seconds=floor_seconds, floor_fraction=floor_seconds / seconds, bound=bound)
    if candidate.images is not None:
        return row._replace(rate=candidate.images / seconds, unit="images/s")
    if candidate.work is not None:
        return row._replace(rate=candidate.work.flops / seconds / 1e9, unit="GF/s")
    return row


def peak_memory() -> int:
    """Return the largest memory use so far in bytes: of the fullest accelerator, or on a CPU of this process."""
    device_peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    import resource  # here, because Windows does not have it

    return max(device_peaks) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def table(rows: list[Row]) -> str:
    """Format the rows as text."""
    case_width = max((len(row.case) for row in rows), default=0) + 2
    name_width = max((len(row.implementation) for row in rows), default=0) + 2
    lines = [
        f"{'case':<{case_width}}{'implementation':<{name_width}}{'seconds':>9}{'ratio':>8}{'CPU ratio':>11}  "
        f"{'of the floor':<18}{'rate':<19}{'peak MiB':>8}"
    ]
    for row in rows:
        fraction = "" if row.floor_fraction is None else f"{row.floor_fraction:6.1%} {row.bound}"
        rate = "" if row.rate is None else f"{row.rate:.4g} {row.unit}"
        cpu = "" if row.cpu_ratio is None else f"{row.cpu_ratio:.2f}"
        peak = "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}"
        lines.append(
            f"{row.case:<{case_width}}{row.implementation:<{name_width}}{row.seconds:9.4f}{row.ratio:8.2f}{cpu:>11}  "
            f"{fraction:<18}{rate:<19}{peak:>8}"
        )
    return "\n".join(lines)
