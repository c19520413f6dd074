"""WebSocket: each module separately, then with other clients and frameworks."""
