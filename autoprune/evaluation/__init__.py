"""Scoring policies on a live network."""
