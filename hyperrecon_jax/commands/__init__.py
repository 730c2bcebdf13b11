"""The work of the command lines, one module for each command. `hyperrecon_jax.cli` has their flags."""
