"""From moments to levels: criteria that order groups, reconstruction of consumers, the level store."""
