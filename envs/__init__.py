"""Pruning as a Gymnasium environment."""
