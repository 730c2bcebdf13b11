"""From the start of Python to the second training step, in fresh processes: with nothing compiled before, and once more.

What was compiled is found again in JAX's persistent compilation cache, here a folder of its own. The parts: the import of
all that a training run imports; making the network, tracing and compiling the step; the first step; the second.
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
from typing import Any

import jax

import hyperrecon_jax
from hyperrecon_jax.benchmarks import networks
from hyperrecon_jax.benchmarks.networks import Scale
from hyperrecon_jax.benchmarks.timing import Row, memory_held
from hyperrecon_jax.runtime.mesh import device_mesh

STARTS = ("first start", "second start")
CHILD = "import hyperrecon_jax.commands.train; from hyperrecon_jax.benchmarks import startup; startup.child()"


def measure(scale: Scale, *, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Rows of a first and a second start, medians of `rounds`, each part a case of its own."""
    told: dict[str, list[dict[str, float]]] = {name: [] for name in STARTS}
    for i in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for name in STARTS:
                told[name].append(_start(scale, cache))
                say(f"startup, {scale.label}: {name}, round {i + 1} of {rounds}, {told[name][-1]['all']:.1f} s")
    rows = []
    for part in told[STARTS[0]][0]:
        if part == "peak":
            continue
        seconds = {name: statistics.median(one[part] for one in told[name]) for name in STARTS}
        for name in STARTS:
            peak = int(max(one["peak"] for one in told[name]))
            ratio = seconds[name] / seconds[STARTS[0]]
            rows.append(Row("startup", f"{part}, {scale.label}", name, seconds[name], ratio, peak_bytes=peak))
    return rows


def _start(scale: Scale, cache: str) -> dict[str, float]:
    settings = {
        "PYTHONPATH": os.pathsep.join([str(Path(hyperrecon_jax.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if jax.default_backend() == "cpu":
        settings["JAX_NUM_CPU_DEVICES"] = str(jax.local_device_count())
    given = json.dumps([time.time(), scale])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, given], env=os.environ | settings, stdout=subprocess.PIPE, check=True, text=True
    )
    return dict(json.loads(done.stdout))


def child() -> None:
    """In the fresh process: what the parent gave, to the seconds of each part."""
    began, scale = json.loads(sys.argv[1])
    scale = Scale(*scale)
    seconds: dict[str, Any] = {}
    last = began

    def done(part):
        nonlocal last
        seconds[part], last = time.time() - last, time.time()

    done("import")
    mesh, samples = device_mesh(scale.batch), networks.images(scale)
    task = networks.supervised(scale, hyper_width=scale.hyper_widths[-1], norm="instance")
    step = networks.step("", "", task, mesh, samples)
    done("build and compile")
    step.run()
    done("first step")
    step.run()
    done("second step")
    seconds["all"] = last - began
    print(json.dumps(seconds | {"peak": memory_held()}))
