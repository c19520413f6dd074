"""One app on one event loop."""
