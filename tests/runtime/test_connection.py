"""How processes connect, and how they end when one of them has an error."""

import socket

import pytest

from hyperrecon_jax.runs import checkpoint
from hyperrecon_jax.runtime import connection
from hyperrecon_jax.runtime.errors import InputError
from tests.runtime.processes import free_port, start_process, wait_for_processes

CONNECT = """
import sys
from hyperrecon_jax.runtime import connection
connection.CONNECT_TIMEOUT = 2
try:
    with connection.connect_processes(sys.argv[1], 2, int(sys.argv[2])):
        pass
except connection.InputError as error:
    sys.exit(f"error: {error}")
"""


@pytest.mark.slow
def test_an_error_in_one_process_ends_both():
    """They find each other as under Slurm. JAX ends the other process when it misses the heartbeat."""
    code = """
import time
from hyperrecon_jax.runtime import connection, distributed
from hyperrecon_jax.runtime.errors import InputError
connection.HEARTBEAT_TIMEOUT = 10
with connection.connect_processes("auto", None, None):
    if not distributed.is_primary():
        raise InputError("There is no such file.")
    time.sleep(100)
"""
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    tasks = [job | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    first, second = wait_for_processes([start_process(code, **task) for task in tasks], timeout=60)
    assert second == (2, "", "error: There is no such file.\n")
    assert first[0] != 0
    assert "another task died" in first[2]


def test_a_missing_process_is_not_waited_for_forever():
    address = f"localhost:{free_port()}"
    ((status, _, errors),) = wait_for_processes([start_process(CONNECT, address, 1)], timeout=60)
    assert status == 2
    assert errors == f"error: The processes did not connect by --coordinator {address} in 2 s.\n"


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_a_port_in_use_is_one_sentence(host):
    with socket.create_server((host, 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        ((_, _, errors),) = wait_for_processes([start_process(CONNECT, address, 0)], timeout=60)
    assert errors == (
        f"error: The primary process cannot serve at the port of --coordinator {address}: Address already in use;"
        " choose another port.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((None, 2, None), "need the primary process's address"),
        (("auto", None, 1), "need the primary process's address"),
        (("localhost", 2, 0), "must be auto or ADDRESS:PORT"),
        (("localhost:port", 2, 0), "must be auto or ADDRESS:PORT"),
        (("localhost:99999", 2, 0), "must be auto or ADDRESS:PORT"),
        (("localhost:1234", 2, None), "needs --processes"),
        (("localhost:1234", None, 0), "needs --processes"),
        (("localhost:1234", 2, 2), r"must be in \[0, 2\)"),
        (("localhost:1234", 2, -1), r"must be in \[0, 2\)"),
    ],
)
def test_flags_that_do_not_fit_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence), connection.connect_processes(*arguments):
        pass


def test_a_lost_process_is_not_reported_as_a_damaged_checkpoint(monkeypatch, tmp_path):
    class Checkpoints:
        directory = tmp_path

        def latest_step(self):
            return 4

        def all_steps(self):
            return [4]

        def restore(self, *args, **options):
            raise ValueError("Orbax failed") from RuntimeError("Gloo all-reduce failed: Connection closed by peer")

    class Like:
        def _asdict(self):
            return {}

    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.restore(Checkpoints(), Like())
    monkeypatch.setattr(connection, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="Orbax failed") as caught:
        checkpoint.restore(Checkpoints(), Like())
    assert not isinstance(caught.value, InputError)
