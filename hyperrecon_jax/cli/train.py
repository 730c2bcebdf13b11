"""Train a reconstruction network for every lambda.

    hyperrecon train --config quickstart
    hyperrecon train --config paper_csmri_supervised_8x:M --config.train.batch=16 --workdir runs/mine
    hyperrecon train --config paper_csmri_supervised_8x --dry-run

With several processes, here one on each node of a Slurm job:

    srun hyperrecon train --config paper_csmri_supervised_8x --coordinator auto

The same command again resumes a run that was interrupted. Results are in the work folder.
"""

from absl import flags
from ml_collections import config_flags

from hyperrecon_jax.cli import command, config_flag, process_flags
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import InputError

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "FILE[:VARIANT] or NAME[:VARIANT] with the settings; --config.key=value changes one.",
    sys_argv=config_flag.ARGV,
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run (default: runs/ and the name of the config).")
DRY_RUN = flags.DEFINE_bool("dry-run", False, "Build everything, say what would run and how long it would take, and stop.")
flags.adopt_module_key_flags(process_flags)


def train() -> int:
    """Train by the flags; returns the exit status."""
    if CONFIG.value is None:
        raise InputError(adapt("Say what to train: --config quickstart (see --help)."))
    workdir = command.parse_path(WORKDIR) or config_flag.default_workdir()
    from hyperrecon_jax.commands import train as train_command
    from hyperrecon_jax.runtime import machine  # after the flags: JAX takes seconds to import

    norm = getattr(getattr(CONFIG.value, "model", None), "norm", None)  # the settings are not checked yet
    machine.configure_jax(has_large_arrays=norm == "batch")
    with process_flags.connect_processes():
        if DRY_RUN.value:
            train_command.dry_run(CONFIG.value)
            return 0
        return 0 if train_command.train(CONFIG.value, workdir) else 130


def main() -> None:
    command.run(train)
