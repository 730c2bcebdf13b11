"""Controllable image reconstruction: one hypernetwork gives the reconstruction for every setting of the loss weights."""
