"""Time the compiled parts on this machine: one process, alternating calls, medians and ratios.

    python -m bin.bench --suite dhs
    python -m bin.bench --suite dhs --size 256 --batch 32 --json dhs.json

`dhs` is a training step of amortized optimization with uniform sampling against DHS that keeps a half and a quarter;
`landscape` scores images at many lambdas against the bare forward passes; `feed` brings batches from memory and from disk,
alone and beside a step.
"""

import pathlib

from absl import flags

from bin import _cli

SUITE = flags.DEFINE_enum("suite", "dhs", ["dhs", "landscape", "feed"], "What to time.")
SIZE = flags.DEFINE_integer("size", 128, "Pixels along a side.", lower_bound=8)
BATCH = flags.DEFINE_integer("batch", 16, "Samples in a batch.", lower_bound=4)
WIDTH = flags.DEFINE_integer("width", 32, "Channels of the U-Net.", lower_bound=1)
HYPER_WIDTH = flags.DEFINE_integer("hyper_width", 128, "d, the width of the hypernetwork.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 7, "Calls of each.", lower_bound=1)
JSON = flags.DEFINE_string("json", None, "File for the rows.")


def bench() -> int:
    from hyperrecon_jax import bench, machine  # after the flags: JAX takes seconds to import
    from hyperrecon_jax.checkpoint import write_json
    from hyperrecon_jax.errors import InputError

    if SIZE.value % 8:
        raise InputError(f"--size must be a multiple of 8, got {SIZE.value}.")
    machine.start()
    suite = bench.SUITES[SUITE.value]
    candidates = suite(size=SIZE.value, batch=BATCH.value, width=WIDTH.value, hyper_width=HYPER_WIDTH.value)
    rows = bench.measure(SUITE.value, list(candidates), rounds=ROUNDS.value, say=print)
    print(bench.table(rows))
    if JSON.value:
        write_json(pathlib.Path(JSON.value), [row._asdict() for row in rows])
    return 0


if __name__ == "__main__":
    _cli.main(bench)
