"""Shared settings of the tests: silent rank promotion is an error, two CPU devices, so that sharding is real, and one
compilation cache for all processes of the session, because most of the time goes into compiling the same small step again.
"""

import atexit
import os
import shutil
import tempfile

# Most of the time goes into compiling. With these flags XLA compiles faster, and the programs round a little differently,
# in jax 0.8 and 0.9 too differently for one test. XLA_FLAGS= (empty) in the environment leaves these flags out.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)

import jax
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    CACHE = os.environ["JAX_COMPILATION_CACHE_DIR"]  # that of the process which started this one
else:
    CACHE = tempfile.mkdtemp(prefix="hyperrecon-jax-tests-")
    atexit.register(shutil.rmtree, CACHE, ignore_errors=True)

jax.config.update("jax_numpy_rank_promotion", "raise")
for name, value in {
    "jax_num_cpu_devices": 2,
    "jax_compilation_cache_dir": CACHE,
    "jax_compilation_cache_max_size": 2**33,  # bytes; with a limit processes wait for each other's writing
    "jax_persistent_cache_min_compile_time_secs": 0.3,
}.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)  # for the commands that tests start


@pytest.fixture(scope="module")
def small_network():
    """`helper.small_networks` for the tests of a module."""
    from helper import small_networks

    with small_networks():
        yield
