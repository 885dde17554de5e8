"""Watchkeeper: IT operations by agents that never leave the building."""
