"""Networks: loading, the view as blocks, cutting widths out of them."""
