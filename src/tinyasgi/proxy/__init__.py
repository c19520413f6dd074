"""The client behind a trusted proxy."""
