"""Metrics that a budget can bound: one file each, a function of a unit, a level and the workload.

`metric` asks and checks them, those of the user's own among them; `table` makes one of a CSV file.
"""
