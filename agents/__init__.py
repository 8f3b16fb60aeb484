"""Search algorithms: one file each, one method `search(objective, rng)`; see `agent.py`."""
