"""Cutting a live network: which tensors follow a width, how they are laid out, and what stands where parts are gone."""
