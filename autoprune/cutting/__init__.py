"""Cutting a live network: the tensors that follow a width, their layouts, and stand-ins for removed parts."""
