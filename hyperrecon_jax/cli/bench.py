"""Time the compiled parts on this machine, beside alternatives and beside what the machine can do.

    hyperrecon bench
    hyperrecon bench --suite train,peer --size 128,256 --batch 8,32 --json rows.json
    hyperrecon bench --suite all

Without --suite it times conv, train, dhs and landscape, which takes some minutes. All calls are in one process and
alternate, so that a busy machine slows all of them.

    conv       the convolution with a kernel for each sample, with its gradients: the library's way and others
    train      a training step with each width of the hypernetwork, under both norms
    dhs        a step of amortized optimization: uniform sampling, and DHS that keeps a half and a quarter of the batch
    landscape  scores of images at many lambdas, beside the forward passes alone
    feed       batches from memory and from disk, alone and beside a step
    startup    two starts of Python, up to the second step
    page       the explorer's page in a browser: from a move of lambda to the painted picture, 20 moves in a round
    peer       the training step, beside the same step in PyTorch where that is installed

The floor is the time that the operations and the unavoidable memory traffic take at this machine's measured rates. The peak
is the memory that the compiled program needs on each device, arguments and results included.
"""

import os

from absl import flags

from hyperrecon_jax.cli import command
from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import InputError

SUITE = flags.DEFINE_list(
    "suite", [], "Any of conv,train,dhs,landscape,feed,peer,startup,page, or all (default: conv,train,dhs,landscape)."
)
SIZE = flags.DEFINE_list("size", ["128"], "Pixels along a side; may be several.")
BATCH = flags.DEFINE_list("batch", ["8"], "Samples in a batch; may be several.")
WIDTH = flags.DEFINE_integer("width", 32, "Channels of the U-Net.", lower_bound=1, upper_bound=4096)
HYPER_WIDTH = flags.DEFINE_list(
    "hyper_width", ["4", "32", "128"], "Width d of the hypernetwork; all suites but `train` take the last."
)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Calls of each program.", lower_bound=1, upper_bound=1_000_000)
JSON = flags.DEFINE_string("json", None, "File for the rows.")
COMPARE = flags.DEFINE_string("compare", None, "File that an earlier --json wrote on this machine: what became slower?")


def bench() -> int:
    """Time what the flags say; returns the exit status: 1 if --compare finds that something became slower."""
    sizes, batches = _integers("size", SIZE.value, 16, 4096, step=8), _integers("batch", BATCH.value, 4, 65_536)
    widths = tuple(_integers("hyper_width", HYPER_WIDTH.value, 1, 65_536))
    json_file = command.parse_path(JSON)
    if json_file is not None:
        paths.check_file(json_file, argument="--json")
    compare_file = command.parse_path(COMPARE)
    # PyTorch needs some of a GPU's memory beside JAX, which otherwise takes most of it
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from hyperrecon_jax import benchmarks
    from hyperrecon_jax.benchmarks import regression
    from hyperrecon_jax.models import native
    from hyperrecon_jax.runs.run_folder import write_json
    from hyperrecon_jax.runtime import machine, memory  # after the flags: JAX takes seconds to import

    suites = list(benchmarks.SUITES) if "all" in SUITE.value else SUITE.value or list(benchmarks.QUICK)
    for suite in SUITE.value:
        if suite not in (*benchmarks.SUITES, "all"):
            raise InputError(f"--suite must be among {', '.join(benchmarks.SUITES)}, all; got {suite!r}.")
    old = None if compare_file is None else regression.read_rows(compare_file)
    machine.configure_jax(has_large_arrays=True)  # the networks of most suites are large, and have batch norm, too
    classes = native.activate()
    print(f"{', '.join(suites)} on {benchmarks.describe_machine()}\n{benchmarks.describe_software()}")
    print(f"Native kernels: {', '.join(sorted(classes)) or 'none'}.")
    rows: list[benchmarks.Row] = []
    for suite in suites:
        for scale in [benchmarks.Scale(size, batch, WIDTH.value, widths) for size in sizes for batch in batches]:
            try:
                timings = benchmarks.run(suite, scale, rounds=ROUNDS.value, say=lambda line: print(line, flush=True))
            except InputError as error:
                if len(suites) == 1:
                    raise
                print(error)  # the other suites still run
                break
            peak = memory.format_bytes(benchmarks.peak_memory())
            print(f"\n{benchmarks.table(timings)}\n\nMemory at the peak so far: {peak}.\n")
            rows += timings
            if json_file is not None:
                json_file.parent.mkdir(parents=True, exist_ok=True)
                write_json(json_file, [row._asdict() for row in rows])
    if old is None:
        return 0
    changes = regression.find_changes(old, rows)
    print(regression.change_table(changes))
    return int(any(change.verdict == "slower" for change in changes))


def _integers(flag: str, values: list[str], least: int, most: int, *, step: int = 1) -> list[int]:
    """Return the whole numbers of a flag that takes a list; each is in [least, most] and a multiple of `step`."""
    numbers = command.parse_numbers(flag, values)
    for number in numbers:
        if not least <= number <= most or number % step:
            kind = "whole numbers" if step == 1 else f"multiples of {step}"
            raise InputError(f"--{flag} must be {kind} of at least {least} and at most {most}, got {number:g}.")
    return [int(number) for number in numbers]


def main() -> None:
    command.run(bench)
