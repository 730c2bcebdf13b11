"""What the server of processes that estimate coil sensitivities imports (`runtime/aside.py`). Nobody else imports this.

sigpy takes seconds to import. Each process uses one core, and leaves the others to the process that shows images.
"""

import os
import signal

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"
_parent = os.getppid()


def _end_with_parent(*_: object) -> None:
    if os.getppid() != _parent:
        os._exit(1)


# the server looks at its parent after these imports only
signal.signal(signal.SIGALRM, _end_with_parent)
signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)

import sigpy.mri.app  # noqa: E402, F401

import hyperrecon_jax.data.kspace  # noqa: E402, F401

signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_DFL)
