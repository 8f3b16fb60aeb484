"""Measure the perplexity of a network on a text of one's own: with autoprune."""

import autoprune

print(autoprune.evaluate("path/to/model", "text.txt")["perplexity"])
