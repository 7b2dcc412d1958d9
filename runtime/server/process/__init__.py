"""Processes that serve, and the connections that they accept: uvicorn, its workers, and signals."""
