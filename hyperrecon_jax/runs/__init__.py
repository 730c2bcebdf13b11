"""A run: its settings, the experiment they describe, and the folder where training stores its results."""
