"""Train a reconstruction network for every lambda.

    python -m bin.train --config configs/quickstart.py
    python -m bin.train --config configs/paper_csmri_supervised_8x.py:M --config.train.batch=16 --workdir runs/mine
    python -m bin.train --config configs/paper_csmri_supervised_8x.py --dry-run
    srun python -m bin.train --config configs/paper_csmri_supervised_8x.py --coordinator auto     # in several processes

The same command again goes on where it was stopped. Results are in the work folder, `runs/NAME` by default.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from bin import _cli, _hosts

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE[:variant] with the settings; --config.key=value changes one."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run (default: runs/ and the name of the config).")
DRY_RUN = flags.DEFINE_bool("dry-run", False, "Build everything, say what would run and how long it would take, and stop.")
flags.adopt_module_key_flags(_hosts)


def train() -> int:
    from hyperrecon_jax.commands import train
    from hyperrecon_jax.runtime import machine  # after the flags: JAX takes seconds to import
    from hyperrecon_jax.runtime.errors import InputError

    if CONFIG.value is None:
        raise InputError("Say what to train: --config configs/quickstart.py (see --help).")
    machine.configure_jax()
    with _hosts.connect_processes():
        if DRY_RUN.value:
            train.dry_run(CONFIG.value)
            return 0
        return 0 if train.train(CONFIG.value, workdir()) else 130


def workdir() -> pathlib.Path:
    if WORKDIR.value:
        return pathlib.Path(WORKDIR.value)
    file, _, variant = flags.FLAGS["config"].config_filename.partition(":")
    return pathlib.Path("runs") / "-".join(filter(None, [pathlib.Path(file).stem, variant]))


if __name__ == "__main__":
    _cli.main(train)
