"""How each model family is cut into units: one file a family, declarations only."""
