"""Embedded networks, by the names that `--model` takes."""
