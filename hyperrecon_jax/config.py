"""The settings, where config files import them from: `from hyperrecon_jax.config import default_config`."""

from hyperrecon_jax.runs.config import choose, complete, default_config, paper_config

__all__ = ["choose", "complete", "default_config", "paper_config"]
