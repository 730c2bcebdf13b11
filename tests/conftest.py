"""Settings that all tests share.

Silent rank promotion is an error. There are two CPU devices, so that sharding is real. All processes of the session share
one compilation cache: without it, compiling the same small step again would take most of the time.
"""

import atexit
import gc
import importlib
import os
import shutil
import sys
import tempfile

# These flags make XLA compile faster. They change rounding a little: with jax 0.8 and 0.9 too much for one test.
# Set XLA_FLAGS= (empty) in the environment to leave them out.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)

import jax
import pytest

# tensorboardX imports PyTorch where it is installed, which takes seconds; here it writes numbers alone
sys.modules["torch"] = None
importlib.import_module("tensorboardX")
del sys.modules["torch"]

if "PYTEST_XDIST_WORKER" in os.environ:
    CACHE = os.environ["JAX_COMPILATION_CACHE_DIR"]  # from the process that started this one
else:
    CACHE = tempfile.mkdtemp(prefix="hyperrecon-jax-tests-")
    atexit.register(shutil.rmtree, CACHE, ignore_errors=True)

jax.config.update("jax_numpy_rank_promotion", "raise")
for name, value in {
    "jax_num_cpu_devices": 2,
    "jax_compilation_cache_dir": CACHE,
    "jax_compilation_cache_max_size": 2**33,  # bytes; only with a limit do processes lock the cache while they write
    "jax_persistent_cache_min_compile_time_secs": 0.3,
}.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)  # for the commands that tests start


def pytest_collection_finish():
    """Search for cyclic garbage seldom: tracing makes many objects that stay, and each search looks at them again."""
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)


@pytest.fixture(scope="module")
def small_network():
    """`helper.small_networks` for all tests of a module."""
    from helper import small_networks

    with small_networks():
        yield
