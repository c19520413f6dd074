"""HTTP/1.1 as one table, run on every parser."""
