"""What a search's result can be written as: one file each, a subclass of `autoprune.ports.Exporter`."""
