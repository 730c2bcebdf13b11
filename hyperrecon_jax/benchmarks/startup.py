"""Time from the start of Python to the end of the second training step, in new processes.

The first start finds nothing compiled. The second start finds the programs of the first in JAX's persistent compilation
cache, which is a folder of its own. Both are split into parts: import everything that a training run imports; make the
network, trace and compile the step; take the first step; take the second step.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

import hyperrecon_jax
from hyperrecon_jax.benchmarks import networks
from hyperrecon_jax.benchmarks.networks import Scale
from hyperrecon_jax.benchmarks.timing import Row, peak_memory, percentile_interval
from hyperrecon_jax.runtime.mesh import device_mesh

STARTS = ("first start", "second start")
CHILD_CODE = "import hyperrecon_jax.commands.train; from hyperrecon_jax.benchmarks import startup; startup.time_parts()"


def measure_starts(scale: Scale, *, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Time a first and a second start; each part is a case, with the medians of `rounds` rounds."""
    reports: dict[str, list[dict[str, float]]] = {name: [] for name in STARTS}
    for i in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for name in STARTS:
                report = _start_process(scale, cache)
                reports[name].append(report)
                say(f"startup, {scale.label}: {name}, round {i + 1} of {rounds}, {report['all']:.1f} s")
    rows = []
    for part in reports[STARTS[0]][0]:
        if part == "peak":
            continue
        seconds = {name: statistics.median(report[part] for report in reports[name]) for name in STARTS}
        for name in STARTS:
            peak = int(max(report["peak"] for report in reports[name]))
            ratio = seconds[name] / seconds[STARTS[0]]
            interval = percentile_interval([report[part] for report in reports[name]])
            rows.append(Row("startup", f"{part}, {scale.label}", name, seconds[name], ratio, *interval, peak_bytes=peak))
    return rows


def _start_process(scale: Scale, cache: str) -> dict[str, float]:
    """Run `time_parts` in a new process; return the seconds of each part, and the peak memory in bytes as "peak"."""
    environment = {
        "PYTHONPATH": os.pathsep.join([str(Path(hyperrecon_jax.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if jax.default_backend() == "cpu":
        environment["JAX_NUM_CPU_DEVICES"] = str(jax.local_device_count())
    command = [sys.executable, "-c", CHILD_CODE, json.dumps([time.time(), scale])]
    process = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(process.stdout))


def time_parts() -> None:
    """Do the parts in the new process, and print their seconds as JSON.

    The parent passes its start time and the scale on the command line.
    """
    ends = {"import": time.time()}
    start, sizes = json.loads(sys.argv[1])
    scale = Scale(*sizes)
    mesh, samples = device_mesh(scale.batch), networks.noise_images(scale)
    task = networks.supervised_task(scale, hyper_width=scale.hyper_widths[-1], norm="instance")
    step = networks.step_candidate("", "", task, mesh, samples)
    ends["build and compile"] = time.time()
    step.run()
    ends["first step"] = time.time()
    step.run()
    ends["second step"] = time.time()
    starts = [start, *ends.values()][:-1]
    seconds = {part: end - part_start for (part, end), part_start in zip(ends.items(), starts, strict=True)}
    print(json.dumps(seconds | {"all": ends["second step"] - start, "peak": peak_memory()}))
