"""Metrics over lambda: computing them, storing them, and choosing lambda by them.

To add a metric, add a row to `METRICS` in `losses/metric_table.py`.
"""

import lazy_loader

# Loaded on first use, so that `import hyperrecon_jax` stays fast.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["choose"])
