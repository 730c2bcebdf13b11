"""The flags of a command that several processes carry out together."""

from contextlib import AbstractContextManager

from absl import flags

COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "With several processes: auto (Slurm, Open MPI, Kubernetes, TPU pod) or ADDRESS:PORT of the primary one.",
)
PROCESSES = flags.DEFINE_integer("processes", None, "With ADDRESS:PORT: the number of processes.")
PROCESS = flags.DEFINE_integer(
    "process", None, "With ADDRESS:PORT: the number of this process, from 0; 0 is the primary one."
)


def connect_processes() -> AbstractContextManager[None]:
    """Connect to the other processes as the flags say (`connection.connect_processes`)."""
    from hyperrecon_jax.runtime import connection  # after the flags: JAX takes seconds to import

    return connection.connect_processes(COORDINATOR.value, PROCESSES.value, PROCESS.value)
