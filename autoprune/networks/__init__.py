"""Networks: loading, and the protocol `embed -> blocks -> head` for every kind of network."""
