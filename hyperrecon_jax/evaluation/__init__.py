"""Scores over lambda: computing them, keeping them, and choosing lambdas by them."""

import lazy_loader

# imported when first asked for, as `hyperrecon_jax` asks for them
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["choose"])
