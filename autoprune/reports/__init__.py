"""Reports: a run as one HTML file that stands by itself, made from what the run left on disk."""
