"""Moments of activations, derivatives and losses on the data of calibration."""
