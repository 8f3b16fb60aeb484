"""What a search's result can be written as: one file each, `export(assembly, policy, path, **options)`."""
