"""Scoring on Ray: many workers, many GPUs, many machines (docs/cluster.md).

- `cluster.py`: starts Ray, or joins a running cluster;
- `bundle.py`: the files that a worker needs, which all workers of a machine map into memory;
- `worker.py`: the actor that scores;
- `schedule.py`: cuts a batch into jobs by their costs;
- `supervisor.py`: starts workers, watches them, and replaces those that die;
- `pool.py`: the scorer that searches call.
"""
