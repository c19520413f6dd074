"""Options: every option once, its kind, and the sources of its value."""
