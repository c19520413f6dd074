"""Programs and frameworks that start a server themselves: uvicorn's API, gunicorn, Django."""
