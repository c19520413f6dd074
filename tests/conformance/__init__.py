"""A table of HTTP/1.1 cases, which runs with both parsers."""
