"""What all other folders build on: errors, files, memory, signals, JAX's devices, and several processes."""
