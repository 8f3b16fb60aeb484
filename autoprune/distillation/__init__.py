"""Distillations: what makes the dense network a teacher. Each is one file and one line in the registry.

`targets` reads the setting `distill`.
"""
