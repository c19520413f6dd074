"""Options: their definition, the kinds of their values, and their sources."""
