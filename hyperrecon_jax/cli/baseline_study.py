"""HyperRecon against U-Nets at fixed lambdas, seed by seed: train both, compare them, write a table and a picture.

    hyperrecon baseline_study --config laptop_sl:csmri --rate 1e-2 --seeds 3
    hyperrecon baseline_study --config paper_csmri_supervised_8x --out runs/baselines_8x

The first takes hours on two cores, the second is for an accelerator; the same command again goes on where it was stopped.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from hyperrecon_jax.cli import command
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import InputError

CONFIG = config_flags.DEFINE_config_file("config", None, "FILE of the HyperRecon; --config.key=value changes a setting.")
OUT = flags.DEFINE_string("out", "runs/baseline_study", "Folder of the study.")
LAMS = flags.DEFINE_list("lams", ["0", "0.25", "0.5", "0.75", "1"], "Lambdas of the U-Nets.")
RATE = flags.DEFINE_float("rate", None, "Learning rate of the U-Nets (default: the config's).")
SEEDS = flags.DEFINE_integer("seeds", 1, "Runs of each.")


def study() -> int:
    """Carry out the study by the flags; returns the exit status."""
    from hyperrecon_jax.runtime import machine
    from hyperrecon_jax.studies import baseline_study  # after the flags: JAX takes seconds to import

    if CONFIG.value is None:
        raise InputError(adapt("Say what to study: --config laptop_sl:csmri (see --help)."))
    lams = command.parse_numbers("lams", LAMS.value)
    machine.start()
    done = baseline_study.study(
        CONFIG.value, pathlib.Path(OUT.value), lams=lams, learning_rate=RATE.value, seeds=SEEDS.value
    )
    return 0 if done else 130


def main() -> None:
    command.run(study)
