"""Scores over lambda: computing them, keeping them, and choosing lambdas by them."""
