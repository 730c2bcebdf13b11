"""The settings, where config files import them from: `from hyperrecon_jax.config import default_config`."""

from hyperrecon_jax.runs.config import complete, default_config, paper_config, select_variant

choose = select_variant  # the name that earlier versions used

__all__ = ["choose", "complete", "default_config", "paper_config", "select_variant"]
