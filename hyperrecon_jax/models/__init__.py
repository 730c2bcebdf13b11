"""Networks: the U-Net, the hypernetwork that generates its weights from lambda, and their files in other formats."""

import lazy_loader

# imported at their first use
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["export", "hyperparams", "interop"])
