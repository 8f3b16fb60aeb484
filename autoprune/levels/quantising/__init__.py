"""Matrices in few bits: the grid, error compensation, packing."""
