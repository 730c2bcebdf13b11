"""Shared settings of the tests: silent rank promotion is an error."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
