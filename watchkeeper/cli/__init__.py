"""watchkeeper/cli."""
