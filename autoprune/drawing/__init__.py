"""Charts, tables and markup for pages and notebooks: HTML and SVG without scripts."""
