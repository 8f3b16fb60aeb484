"""Trackers of experiments, one a file, and the callback that tells them how a run goes."""
