"""Calibration data: texts, images, fixed splits, and moments of activations."""
