"""HTTP messages: bytes to values and back. No I/O, no options."""
