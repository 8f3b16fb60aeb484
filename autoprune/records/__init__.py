"""The record of a run as an Optuna study: what it holds, where it is kept, how it is looked at."""
