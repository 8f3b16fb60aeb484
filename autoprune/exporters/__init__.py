"""Exporters, which write the result of a search. Each file has a subclass of `autoprune.ports.Exporter`."""
