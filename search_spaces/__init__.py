"""Search spaces: one file for each model family, which declares how it is cut into units."""
