"""Basics for all other folders: errors, files, memory, signals, the devices of JAX, and several processes."""
