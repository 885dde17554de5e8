"""One file a change of the store's tables, in order."""
