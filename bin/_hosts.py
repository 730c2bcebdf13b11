"""The flags of a command that several hosts carry out together."""

from contextlib import AbstractContextManager

from absl import flags

COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "On several hosts: auto (Slurm, Open MPI, Kubernetes, TPU pod) or ADDRESS:PORT of the first."
)
PROCESSES = flags.DEFINE_integer("processes", None, "With ADDRESS:PORT: how many hosts there are.")
PROCESS = flags.DEFINE_integer("process", None, "With ADDRESS:PORT: which of them this is, from 0.")


def joined() -> AbstractContextManager[None]:
    """`distributed.joined` by the flags."""
    from hyperrecon_jax.runtime import distributed  # after the flags: JAX takes seconds to import

    return distributed.joined(COORDINATOR.value, PROCESSES.value, PROCESS.value)
