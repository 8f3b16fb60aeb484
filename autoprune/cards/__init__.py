"""Model cards: the README.md of an export, its metadata for hubs, and the command that repeats the run."""
