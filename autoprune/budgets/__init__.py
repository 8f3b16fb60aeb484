"""Metrics that a budget can bound: one file each, a function of a unit, the groups kept and the workload."""
