"""DHS against UHS for hypernetworks of several widths: train, map the landscapes, write a table and a picture.

    hyperrecon dhs_study --config ao_quickstart --widths 4,32,128 --rates 1e-2,3e-3,1e-3
    hyperrecon dhs_study --config ao_quickstart --config.train.steps=200 --seeds 1 --points 9 --out runs/trial

Hours on two cores; the same command again goes on where it was stopped.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from hyperrecon_jax.cli import command
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import InputError

CONFIG = config_flags.DEFINE_config_file("config", None, "FILE with the experiment; --config.key=value changes a setting.")
OUT = flags.DEFINE_string("out", "runs/dhs_study", "Folder of the study.")
WIDTHS = flags.DEFINE_list("widths", ["4", "32", "128"], "Widths d of the hypernetwork.")
RATES = flags.DEFINE_list("rates", [], "A learning rate for each width (default: the config's for all).")
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each.")
POINTS = flags.DEFINE_integer("points", 21, "Points of the grid along each lambda.")


def study() -> int:
    """Carry out the study by the flags; returns the exit status."""
    from hyperrecon_jax.runtime import machine
    from hyperrecon_jax.studies import dhs_study  # after the flags: JAX takes seconds to import

    if CONFIG.value is None:
        raise InputError(adapt("Say what to study: --config ao_quickstart (see --help)."))
    if not all(width.isdecimal() and int(width) > 0 for width in WIDTHS.value):
        raise InputError(f"--widths must be whole numbers above 0, got {','.join(WIDTHS.value)}.")
    rates = command.parse_numbers("rates", RATES.value)
    machine.start()
    done = dhs_study.study(
        CONFIG.value,
        pathlib.Path(OUT.value),
        widths=[int(width) for width in WIDTHS.value],
        rates=rates,
        seeds=SEEDS.value,
        points=POINTS.value,
    )
    return 0 if done else 130


def main() -> None:
    command.run(study)
