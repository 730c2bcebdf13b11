"""How an image is measured: samples, operators, masks, and the problem that they pose. Nothing here is learned."""

import lazy_loader

# imported when first asked for, as `hyperrecon_jax` asks for them
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["masks", "operators"])
