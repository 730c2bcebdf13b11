"""Time the compiled parts on this machine: one process, alternating calls, medians, ratios, nearness to the floor.

    python -m bin.bench                                     # conv, train, dhs, landscape, small: some minutes
    python -m bin.bench --suite train,peer --size 128,256 --batch 8,32 --json rows.json
    python -m bin.bench --suite all

`conv` computes the convolution with a kernel for each sample and its gradients, in the library's way and in others;
`train` is a training step with each width of the hypernetwork, under both norms; `dhs` is a step of amortized
optimization with uniform sampling, against DHS that keeps a half and a quarter; `landscape` scores images at many
lambdas, against the bare forward passes; `feed` brings batches from memory and from disk, alone and beside a step;
`startup` starts Python twice, up to the second step; `peer` is the training step beside the same step in PyTorch, where
that is installed.

The floor is what the operations and the memory traffic that cannot be avoided take at this machine's measured rates; the
peak is what the compiled program needs on each device, arguments and results included.
"""

import os
import pathlib

from absl import flags

from bin import _cli
from hyperrecon_jax.runtime.errors import InputError

SUITE = flags.DEFINE_list("suite", [], "What to time, or `all`; otherwise what is quick.")
SIZE = flags.DEFINE_list("size", ["128"], "Pixels along a side; may be several.")
BATCH = flags.DEFINE_list("batch", ["8"], "Samples in a batch; may be several.")
WIDTH = flags.DEFINE_integer("width", 32, "Channels of the U-Net.", lower_bound=1)
HYPER_WIDTH = flags.DEFINE_list(
    "hyper_width", ["4", "32", "128"], "d, of the hypernetwork; all suites but `train` take the last."
)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Calls of each.", lower_bound=1)
JSON = flags.DEFINE_string("json", None, "File for the rows.")


def bench() -> int:
    sizes, batches = _whole("size", SIZE.value, least=16, step=8), _whole("batch", BATCH.value, least=4)
    widths = tuple(_whole("hyper_width", HYPER_WIDTH.value, least=1))
    # PyTorch needs some of a GPU's memory beside JAX, which otherwise takes most of it
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from hyperrecon_jax import benchmarks
    from hyperrecon_jax.runs.run_folder import write_json
    from hyperrecon_jax.runtime import machine, memory  # after the flags: JAX takes seconds to import

    suites = list(benchmarks.SUITES) if "all" in SUITE.value else SUITE.value or list(benchmarks.QUICK)
    for suite in suites:
        if suite not in benchmarks.SUITES:
            raise InputError(f"--suite must be among {', '.join(benchmarks.SUITES)}, all; got {suite!r}.")
    machine.configure_jax()
    print(f"{', '.join(suites)} on {benchmarks.machine()}")
    rows = []
    for suite in suites:
        for scale in [benchmarks.Scale(size, batch, WIDTH.value, widths) for size in sizes for batch in batches]:
            try:
                found = benchmarks.run(suite, scale, rounds=ROUNDS.value, say=lambda line: print(line, flush=True))
            except InputError as error:
                if len(suites) == 1:
                    raise
                print(error)  # and the others go on
                break
            peak = memory.format_bytes(benchmarks.memory_held())
            print(f"\n{benchmarks.table(found)}\n\nMemory at the peak so far: {peak}.\n")
            rows += found
            if JSON.value:
                write_json(pathlib.Path(JSON.value), [row._asdict() for row in rows])
    return 0


def _whole(flag: str, values: list[str], *, least: int, step: int = 1) -> list[int]:
    numbers = _cli.numbers(flag, values)
    for number in numbers:
        if number < least or number % step:
            kind = "whole numbers" if step == 1 else f"multiples of {step}"
            raise InputError(f"--{flag} must be {kind} of at least {least}, got {number:g}.")
    return [int(number) for number in numbers]


if __name__ == "__main__":
    _cli.main(bench)
