"""watchkeeper/demo."""
