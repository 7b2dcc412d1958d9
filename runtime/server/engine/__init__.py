"""Models behind the APIs: requests are queued, and their rows run in shared model calls."""
