"""The measurement of images: samples, operators, masks, and problems. Nothing in this folder is learned."""

import lazy_loader

# imported at their first use
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["masks", "operators"])
