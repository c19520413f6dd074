"""WebSocket: each room by itself, and all of it with clients and apps of others."""
