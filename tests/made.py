"""Models with invented values, which need no compiling, and the guide's U-Net in PyTorch."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import ROOT

from hyperrecon_jax.models import model

GUIDE = (ROOT / "docs" / "interop.md").read_text()


def made(network, *, channels=2, **options):
    """A model of a network and its variables: those of a network alone, unless options of `model.init` say otherwise."""
    options = {"num_terms": 2, "hyper_width": None, **options}
    models = []

    def init(key):
        made_of, variables = model.init(key, network, jnp.zeros((8, 8, channels)), **options)
        models.append(made_of)
        return variables

    shapes = jax.eval_shape(init, jax.random.key(0))
    rng = np.random.default_rng(0)

    def values(path, leaf):
        if "batch_stats" in jax.tree_util.keystr(path):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        return jnp.asarray(rng.normal(size=leaf.shape) / 2, jnp.float32)

    return models[-1], jax.tree_util.tree_map_with_path(values, shapes)


def reconstructions(network, variables, lams, y):
    """What the model makes of each image at its lambda, `(b, h, w, c)`."""
    function = jax.jit(lambda lam, y: model.reconstruct(network, variables, lam, y))
    return np.stack([function(np.asarray(lam, np.float32), image) for lam, image in zip(lams, y, strict=True)])


def torch_unet(*args, **options):
    """The PyTorch U-Net of docs/interop.md."""
    pytest.importorskip("torch")
    (code,) = (block for block in python_blocks() if "class UNet" in block)
    namespace = {}
    exec(code, namespace)
    return namespace["UNet"](*args, **options)


def python_blocks():
    return re.findall(r"^```python\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
