"""The flags of a command that several processes carry out together."""

from contextlib import AbstractContextManager

from absl import flags

COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Several processes: auto (Slurm, Open MPI, Kubernetes, TPU pod), or ADDRESS:PORT of the first one."
)
PROCESSES = flags.DEFINE_integer("processes", None, "With ADDRESS:PORT: the number of processes.")
PROCESS = flags.DEFINE_integer("process", None, "With ADDRESS:PORT: the index of this process, from 0.")


def joined() -> AbstractContextManager[None]:
    """Return `distributed.joined` of the flags."""
    from hyperrecon_jax.runtime import distributed  # after the flags: JAX takes seconds to import

    return distributed.joined(COORDINATOR.value, PROCESSES.value, PROCESS.value)
