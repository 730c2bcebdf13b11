"""Other hypernetworks than the paper's (docs/improvements.md), each against U-Nets at fixed lambdas, seed by seed.

    hyperrecon improvement_study --config laptop_sl:csmri --config.train.steps=1500 --unets_rate 1e-2
    hyperrecon improvement_study --config laptop_sl:csmri --variants paper,circle+film --rates 2e-3,1e-2

The same command again goes on where it was stopped. A variant is one of circle, low_rank, mixture, film, two of them such
as circle+film, or "paper".
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from hyperrecon_jax.cli import command
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import InputError

CONFIG = config_flags.DEFINE_config_file("config", None, "FILE of the HyperRecon; --config.key=value changes a setting.")
OUT = flags.DEFINE_string("out", "runs/improvement_study", "Folder of the study.")
VARIANTS = flags.DEFINE_list("variants", "paper,circle,low_rank,mixture,film,circle+film", "What is compared.")
RATES = flags.DEFINE_list("rates", [], "A learning rate for each variant (default: the config's for all).")
LAMS = flags.DEFINE_list("lams", ["0", "0.25", "0.5", "0.75", "0.95"], "Lambdas of the U-Nets.")
UNETS_RATE = flags.DEFINE_float("unets_rate", None, "Learning rate of the U-Nets (default: the config's).")
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each.")


def study() -> int:
    """Carry out the study by the flags; returns the exit status."""
    from hyperrecon_jax.runtime import machine
    from hyperrecon_jax.studies import improvement_study  # after the flags: JAX takes seconds to import

    if CONFIG.value is None:
        raise InputError(adapt("Say what to study: --config laptop_sl:csmri (see --help)."))
    rates, lams = command.parse_numbers("rates", RATES.value), command.parse_numbers("lams", LAMS.value)
    machine.start()
    done = improvement_study.study(
        CONFIG.value,
        pathlib.Path(OUT.value),
        variants=VARIANTS.value,
        rates=rates,
        lams=lams,
        unets_rate=UNETS_RATE.value,
        seeds=SEEDS.value,
    )
    return 0 if done else 130


def main() -> None:
    command.run(study)
