"""Models with random parameters, which need no compiling, and the U-Net in PyTorch of docs/interop.md."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import ROOT

from hyperrecon_jax.models import model

GUIDE = (ROOT / "docs" / "interop.md").read_text()


def random_model(network, *, channels=2, example=None, **options):
    """Return a model of a network, and random variables for it.

    `example` is an input of the network; None: that of a U-Net. `options` are those of `model.init`. Without any, the model
    is the network alone, without a hypernetwork.
    """
    options = {"num_terms": 2, "hyper_width": None, **options}
    net_input = jnp.zeros((8, 8, channels)) if example is None else example
    models = []

    def make_variables(key):
        conditioned, variables = model.init(key, network, net_input, **options)
        models.append(conditioned)
        return variables

    shapes = jax.eval_shape(make_variables, jax.random.key(0))
    return models[0], random_variables(shapes)


def random_variables(shapes):
    """Return random numbers for a tree of shapes. To initialize the variables, a program would be compiled."""
    rng = np.random.default_rng(0)

    def random_leaf(path, leaf):
        if "batch_stats" in jax.tree_util.keystr(path):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        return jnp.asarray(rng.normal(size=leaf.shape) / 2, jnp.float32)

    return jax.tree_util.tree_map_with_path(random_leaf, shapes)


def reconstruct_batch(network, variables, lams, net_inputs):
    """Return the model's reconstruction of each network input at its own lambda, `(b, h, w, c)`."""
    function = jax.jit(lambda lam, net_input: model.reconstruct(network, variables, lam, net_input))
    pairs = zip(lams, net_inputs, strict=True)
    return np.stack([function(np.asarray(lam, np.float32), net_input) for lam, net_input in pairs])


def torch_unet(*args, **options):
    """Return the PyTorch U-Net of docs/interop.md."""
    pytest.importorskip("torch")
    (code,) = (block for block in python_blocks() if "class UNet" in block)
    namespace = {}
    exec(code, namespace)
    return namespace["UNet"](*args, **options)


def python_blocks():
    """Return the code of each Python block in docs/interop.md."""
    return re.findall(r"^```python\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
