"""Networks: the U-Net, the hypernetwork that generates its weights from lambda, and their files in other formats."""

import lazy_loader

# imported when first asked for, as `hyperrecon_jax` asks for them
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["export", "hyperparams", "interop"])
