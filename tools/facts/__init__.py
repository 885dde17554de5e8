"""tools/facts."""
