"""Client information from trusted proxies."""
