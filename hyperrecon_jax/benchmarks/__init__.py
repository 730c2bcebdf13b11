"""Time the compiled parts of the package on this machine. Every case has a reference and, where it is known, a floor.

    SUITES             the names of the suites
    QUICK              the suites that run by default
    run                time one suite and return its rows
    table              format rows as text
    describe_machine   say what this machine can do
    describe_software  say what runs on it

`timing.py` explains how calls are timed. `floor.py` explains the floor.
"""

import os
import platform
from collections.abc import Callable, Iterator

import jax

from hyperrecon_jax.benchmarks import against_peer, convolutions, feed, floor, landscape, page, startup, steps
from hyperrecon_jax.benchmarks.networks import Scale
from hyperrecon_jax.benchmarks.timing import Candidate, Row, measure, peak_memory, table
from hyperrecon_jax.runtime.machine import package_version

__all__ = ["QUICK", "SUITES", "Row", "Scale", "describe_machine", "describe_software", "peak_memory", "run", "table"]

CANDIDATES: dict[str, Callable[[Scale], Iterator[Candidate]]] = {
    "conv": convolutions.candidates,
    "train": steps.train_candidates,
    "dhs": steps.dhs_candidates,
    "landscape": landscape.candidates,
    "feed": feed.candidates,
    "peer": against_peer.candidates,
}
SUITES = (*CANDIDATES, "startup", "page")
PACKAGES = ("hyperrecon_jax", "jax", "jaxlib", "flax", "numpy", "torch")  # whose versions a report names
QUICK = ("conv", "train", "dhs", "landscape")  # these need only this package and only this process
MAX_STARTS = 3  # rounds of the suite `startup`, at most


def run(suite: str, scale: Scale, *, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Time one of `SUITES` and return its rows; `say` prints the progress.

    Raises:
        InputError: for `peer` without PyTorch, for `page` without Playwright and Chromium.
    """
    if suite == "page":
        return page.measure_page(scale, rounds=rounds, say=say)
    if suite == "startup":
        return startup.measure_starts(scale, rounds=min(rounds, MAX_STARTS), say=say)
    return measure(suite, CANDIDATES[suite](scale), rounds=rounds, rates=floor.measure_rates, say=say)


def describe_machine() -> str:
    """Return one line: the devices, the measured rates behind the floors, and the load from other programs."""
    load = os.getloadavg()[0]  # before the benchmark adds its own
    rates, device = floor.measure_rates("float32"), jax.devices()[0].device_kind
    speed = f"{rates.flops / 1e9:.0f} GF/s in float32 matrix products, {rates.bytes / 1e9:.0f} GB/s copied"
    return f"{jax.local_device_count()} devices ({device}): {speed}; {os.cpu_count()} cores, load {load:.1f} before"


def describe_software() -> str:
    """Return two lines: the versions, and the processor and drivers as the system and JAX name them."""
    versions = [(name, package_version(name)) for name in PACKAGES]
    packages = ", ".join(f"{name} {version}" if version else f"no {name}" for name, version in versions)
    drivers = " ".join(jax.devices()[0].client.platform_version.split())
    machine = f"{platform.platform()}, {_processor()}; JAX runs on {drivers}"
    return f"Python {platform.python_version()}, {packages}\n{machine}"


def _processor() -> str:
    """The name of the processor, where the system says it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
