"""Scoring on Ray: many workers, many GPUs, many machines (docs/cluster.md).

- `cluster.py`: a Ray of our own, or one that runs already;
- `bundle.py`: what a worker needs of a search, as files that every worker of a machine maps;
- `worker.py`: an actor that scores;
- `schedule.py`: a batch cut into jobs, by what they cost;
- `supervisor.py`: starts workers, watches them, and replaces those that die;
- `pool.py`: the scorer that searches call.
"""
