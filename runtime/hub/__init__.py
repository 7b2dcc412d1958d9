"""Model hub: names, requests, resumable downloads, and the cache that other programs share."""
