"""Algorithm 1: the gradient of the objective, the compiled step, the loop over steps, and the pilot of loss scales."""

"""Algorithm 1: the gradient of the objective, the compiled step, the loop over steps, and the pilot of loss scales."""
