"""DHS against UHS for hypernetworks of several widths: train, map the landscapes, write a table and a picture.

    python -m bin.dhs_study --config configs/ao_quickstart.py --widths 4,32,128 --rates 1e-2,3e-3,1e-3
    python -m bin.dhs_study --config configs/ao_quickstart.py --config.train.steps=200 --seeds 1 --points 9 --out runs/trial

Hours on two cores; the same command again goes on where it was stopped.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from bin import _cli

CONFIG = config_flags.DEFINE_config_file("config", None, "FILE with the experiment; --config.key=value changes a setting.")
OUT = flags.DEFINE_string("out", "runs/dhs_study", "Folder of the study.")
WIDTHS = flags.DEFINE_list("widths", ["4", "32", "128"], "Widths d of the hypernetwork.")
RATES = flags.DEFINE_list("rates", [], "A learning rate for each width (default: the config's for all).")
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each.")
POINTS = flags.DEFINE_integer("points", 21, "Points of the grid along each lambda.")


def study() -> int:
    from hyperrecon_jax.runtime import machine
    from hyperrecon_jax.runtime.errors import InputError
    from hyperrecon_jax.studies import dhs_study  # after the flags: JAX takes seconds to import

    if CONFIG.value is None:
        raise InputError("Say what to study: --config configs/ao_quickstart.py (see --help).")
    if not all(width.isdecimal() and int(width) > 0 for width in WIDTHS.value):
        raise InputError(f"--widths must be whole numbers above 0, got {','.join(WIDTHS.value)}.")
    rates = _cli.numbers("rates", RATES.value)
    machine.configure_jax()
    done = dhs_study.study(
        CONFIG.value,
        pathlib.Path(OUT.value),
        widths=[int(width) for width in WIDTHS.value],
        rates=rates,
        seeds=SEEDS.value,
        points=POINTS.value,
    )
    return 0 if done else 130


if __name__ == "__main__":
    _cli.main(study)
