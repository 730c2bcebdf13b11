"""What the command lines carry out, one module a command. `hyperrecon_jax.cli` has their flags."""
