"""Networks: loaded, and seen as `embed -> blocks -> head`, whatever they read and wherever their weights are."""
