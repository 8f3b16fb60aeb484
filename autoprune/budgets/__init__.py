"""Metrics that a budget can bound. Each file has one function of a unit, a level and the workload.

`metric` calls and checks metrics, including those of users. `table` makes one from a CSV file.
"""
