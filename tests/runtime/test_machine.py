"""What a command computes on, and that a second start compiles nothing, computes the same and cannot fail by it."""

import ctypes
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from helper import ROOT, python

from hyperrecon_jax.runtime import machine

# What commands do, with one function in the place of an experiment; tells what JAX found, and the result to the last bit.
PROGRAM = """
import json, os, resource, sys, warnings
warnings.simplefilter("ignore")
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec
from hyperrecon_jax.runtime import machine

if len(sys.argv) > 1:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
seen = {"cache_hits": 0, "cache_misses": 0}
def count(event, **_):
    name = event.rpartition("/")[2]
    seen[name] = seen.get(name, 0) + 1
jax.monitoring.register_event_listener(count)
machine.configure_jax()

mesh = jax.make_mesh((jax.device_count(),), ("device",), axis_types=(AxisType.Auto,))
def local(x):
    return jax.lax.pmean(jnp.sin(x) @ jnp.cos(x).T / jnp.sqrt(1 + x**2).sum(), "device")
spread = jax.shard_map(local, mesh=mesh, in_specs=PartitionSpec("device"), out_specs=PartitionSpec())
result = jax.jit(spread)(jax.random.normal(jax.random.key(0), (8, 8)))
told = {"devices": jax.device_count(), "result": jax.device_get(result).tobytes().hex()}
print(json.dumps({**told, "hits": seen["cache_hits"], "written": seen["cache_misses"]}))
"""


def start(cache, *args, **env):
    """What the program tells, of the folder of caches; nothing may be said beside that."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
    ours |= {"PYTHONPATH": str(ROOT), "HYPERRECON_JAX_CACHE": str(cache), **env}
    done = subprocess.run([sys.executable, "-c", PROGRAM, *args], env=ours, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A first start on two devices, and the folder of caches that it leaves."""
    cache = tmp_path_factory.mktemp("cache")
    return start(cache), cache


def entries(cache):
    return sorted((cache / "compiled").glob("*-cache"))


def test_a_second_start_compiles_nothing_and_computes_the_same(first):
    told, cache = first
    assert told["devices"] == 2
    assert told["hits"] == 0
    assert told["written"] == len(entries(cache)) > 0
    again = start(cache)
    assert again == {**told, "hits": told["written"], "written": 0}


def test_damaged_entries_are_compiled_again(first, tmp_path):
    told, cache = first
    rng = np.random.default_rng(0)
    (tmp_path / "compiled").mkdir()
    for i, entry in enumerate(entries(cache)):
        content = entry.read_bytes()
        damaged = [b"", content[: len(content) // 2], rng.bytes(len(content))][i % 3]
        (tmp_path / "compiled" / entry.name).write_bytes(damaged)
    again = start(tmp_path)
    assert (again["result"], again["hits"]) == (told["result"], 0)


def test_a_full_disk_fails_no_start_and_none_that_follows(first, tmp_path):
    told, _ = first
    for limit in ("100", "1000000"):  # bytes of a file at most
        again = start(tmp_path, limit)
        assert (again["result"], again["hits"]) == (told["result"], 0)


def test_a_folder_that_cannot_be_made_fails_no_start(first, tmp_path):
    told, _ = first
    (tmp_path / "file").touch()
    assert start(tmp_path / "file")["result"] == told["result"]
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_COMPILATION_CACHE_DIR", "{}/mine"),
        ("JAX_COMPILATION_CACHE_DIR", ""),
        ("JAX_ENABLE_COMPILATION_CACHE", "0"),
    ],
)
def test_what_the_user_chose_stays(tmp_path, name, value):
    told = start(tmp_path, JAX_NUM_CPU_DEVICES="4", **{name: value.format(tmp_path)})
    assert told["devices"] == 4
    assert not (tmp_path / "compiled").exists()


def test_without_a_choice_each_core_is_a_device(monkeypatch):
    given = {}
    monkeypatch.setattr(jax.config, "update", given.__setitem__)
    machine.use_all_cores()
    assert given == {}  # the tests chose two
    monkeypatch.setattr(type(jax.config), "jax_num_cpu_devices", -1)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    machine.use_all_cores()
    assert given == {"jax_num_cpu_devices": 3}


def test_what_was_not_used_for_the_longest_time_goes_first(tmp_path):
    for age, name in enumerate(("new", "old", "older", "oldest")):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 0))
    machine.delete_least_recently_used(tmp_path, 400)
    assert len(list(tmp_path.iterdir())) == 4
    machine.delete_least_recently_used(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "old"}


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_kept():
    """A block that is allocated again costs no page faults the second time; without `keep_memory` each time."""
    code = (
        "import resource, sys, numpy as np\n"
        "from hyperrecon_jax.runtime import machine\n"
        "if sys.argv[1:]: machine.retain_freed_memory()\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "np.ones(2**24)\n"
        "before = faults(); np.ones(2**24); print(faults() - before)\n"
    )
    kept, given_back = (int(python("-c", code, *args, cwd=ROOT).stdout) for args in (["kept"], []))
    assert kept < 100 < given_back
