"""The devices of a command, and the cache of compiled programs: a second start uses it, and no cache makes a start fail."""

import ctypes
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from helper import ROOT, run_python

from hyperrecon_jax.runtime import machine

# Configures JAX as commands do and runs a function. Prints the devices, the uses of the cache, and all bits of the result.
PROGRAM = """
import json, os, resource, sys, warnings
warnings.simplefilter("ignore")
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec
from hyperrecon_jax.runtime import machine

if len(sys.argv) > 1:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
counts = {"cache_hits": 0, "cache_misses": 0}
def count(event, **_):
    name = event.rpartition("/")[2]
    counts[name] = counts.get(name, 0) + 1
jax.monitoring.register_event_listener(count)
machine.configure_jax()

mesh = jax.make_mesh((jax.device_count(),), ("device",), axis_types=(AxisType.Auto,))
def mean(x):
    return jax.lax.pmean(jnp.sin(x) @ jnp.cos(x).T / jnp.sqrt(1 + x**2).sum(), "device")
sharded_mean = jax.shard_map(mean, mesh=mesh, in_specs=PartitionSpec("device"), out_specs=PartitionSpec())
result = jax.jit(sharded_mean)(jax.random.normal(jax.random.key(0), (8, 8)))
report = {"devices": jax.device_count(), "result": jax.device_get(result).tobytes().hex()}
print(json.dumps({**report, "hits": counts["cache_hits"], "written": counts["cache_misses"]}))
"""


def run_program(cache, *args, **environment):
    """Run the program with a cache folder and return what it prints; it must print no errors.

    On some processors jaxlib 0.8 reports that it compiled for an option that no processor has; this is not ours to mend.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
    env |= {"PYTHONPATH": str(ROOT), "HYPERRECON_JAX_CACHE": str(cache), **environment}
    command = [sys.executable, "-c", PROGRAM, *args]
    process = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    is_old = jax.__version_info__ < (0, 9)
    errors = [line for line in process.stderr.splitlines() if not (is_old and "cpu_aot_loader.cc" in line)]
    assert (process.returncode, errors) == (0, [])
    return json.loads(process.stdout)


@pytest.fixture(scope="module")
def first_start(tmp_path_factory):
    """The report of a first start on two devices, and the cache folder that it leaves."""
    cache = tmp_path_factory.mktemp("cache")
    return run_program(cache), cache


def cache_entries(cache):
    return sorted((cache / "compiled").glob("*-cache"))


def test_a_second_start_compiles_nothing_and_computes_the_same(first_start):
    report, cache = first_start
    assert report["devices"] == 2
    assert report["hits"] == 0
    assert report["written"] == len(cache_entries(cache)) > 0
    second_report = run_program(cache)
    assert second_report == {**report, "hits": report["written"], "written": 0}


@pytest.mark.slow
def test_damaged_entries_are_compiled_again(first_start, tmp_path):
    report, cache = first_start
    rng = np.random.default_rng(0)
    (tmp_path / "compiled").mkdir()
    for i, entry in enumerate(cache_entries(cache)):
        content = entry.read_bytes()
        damaged = [b"", content[: len(content) // 2], rng.bytes(len(content))][i % 3]
        (tmp_path / "compiled" / entry.name).write_bytes(damaged)
    second_report = run_program(tmp_path)
    assert (second_report["result"], second_report["hits"]) == (report["result"], 0)


@pytest.mark.slow
def test_a_full_disk_fails_neither_this_start_nor_a_later_one(first_start, tmp_path):
    report, _ = first_start
    for limit in ("100", "1000000"):  # the largest file in bytes
        second_report = run_program(tmp_path, limit)
        assert (second_report["result"], second_report["hits"]) == (report["result"], 0)


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_fails_no_start(first_start, tmp_path):
    report, _ = first_start
    (tmp_path / "file").touch()
    assert run_program(tmp_path / "file")["result"] == report["result"]
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_COMPILATION_CACHE_DIR", "{}/chosen"),
        ("JAX_COMPILATION_CACHE_DIR", ""),
        ("JAX_ENABLE_COMPILATION_CACHE", "0"),
    ],
)
def test_the_settings_of_the_user_stay(tmp_path, name, value):
    report = run_program(tmp_path, JAX_NUM_CPU_DEVICES="4", **{name: value.format(tmp_path)})
    assert report["devices"] == 4
    assert not (tmp_path / "compiled").exists()


def test_by_default_each_core_is_a_device(monkeypatch):
    updates = {}
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    machine.use_all_cores()
    assert updates == {}  # the tests chose two devices
    monkeypatch.setattr(type(jax.config), "jax_num_cpu_devices", -1)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    machine.use_all_cores()
    assert updates == {"jax_num_cpu_devices": 3}


def test_the_least_recently_used_files_are_deleted_first(tmp_path):
    for age, name in enumerate(("new", "old", "older", "oldest")):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 0))
    machine.delete_least_recently_used(tmp_path, 400)
    assert len(list(tmp_path.iterdir())) == 4
    machine.delete_least_recently_used(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "old"}


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_retained():
    """A block that is allocated again, by any thread, costs no page faults; without `retain_freed_memory` each time.

    Without large arrays the other threads keep their arenas, and return a block of 128 MB.
    """
    code = """
import resource, threading, numpy as np
from hyperrecon_jax.runtime import machine

def count_faults():
    np.ones(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

count_faults()
machine.retain_freed_memory(has_large_arrays=%s)
count_faults()
thread = threading.Thread(target=count_faults)
thread.start()
thread.join()
"""
    returned, *retained = map(int, run_python("-c", code % True, cwd=ROOT).stdout.split())
    assert max(retained) < 10 < returned
    _, in_main_thread, in_other_thread = map(int, run_python("-c", code % False, cwd=ROOT).stdout.split())
    assert in_main_thread < 10 < in_other_thread
