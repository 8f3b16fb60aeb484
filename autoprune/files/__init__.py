"""Files of the user's, and names that become files: read with limits, written in one step."""
