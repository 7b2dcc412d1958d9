"""Server processes and their connections: uvicorn, worker processes, signals."""
