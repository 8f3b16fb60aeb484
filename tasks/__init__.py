"""Tasks, one file each: the kind of data that a network reads, and the measure of its quality."""
