"""HyperRecon against U-Nets at fixed lambdas, seed by seed: train both, compare them, write a table and a picture.

    python -m bin.baseline_study --config configs/laptop_sl.py:csmri --rate 1e-2 --seeds 3
    python -m bin.baseline_study --config configs/paper_csmri_supervised_8x.py --out runs/baselines_8x

The first takes hours on two cores, the second is for an accelerator; the same command again goes on where it was stopped.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from bin import _cli
from hyperrecon_jax.runtime.errors import InputError

CONFIG = config_flags.DEFINE_config_file("config", None, "FILE of the HyperRecon; --config.key=value changes a setting.")
OUT = flags.DEFINE_string("out", "runs/baseline_study", "Folder of the study.")
LAMS = flags.DEFINE_list("lams", ["0", "0.25", "0.5", "0.75", "1"], "Lambdas of the U-Nets.")
RATE = flags.DEFINE_float("rate", None, "Learning rate of the U-Nets (default: the config's).")
SEEDS = flags.DEFINE_integer("seeds", 1, "Runs of each.")


def study() -> int:
    from hyperrecon_jax.runtime import machine
    from hyperrecon_jax.studies import baseline_study  # after the flags: JAX takes seconds to import

    if CONFIG.value is None:
        raise InputError("Say what to study: --config configs/laptop_sl.py:csmri (see --help).")
    lams = _cli.numbers("lams", LAMS.value)
    machine.configure_jax()
    done = baseline_study.study(
        CONFIG.value, pathlib.Path(OUT.value), lams=lams, learning_rate=RATE.value, seeds=SEEDS.value
    )
    return 0 if done else 130


if __name__ == "__main__":
    _cli.main(study)
