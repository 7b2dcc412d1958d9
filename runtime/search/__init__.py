"""Local search: text files, their passages, and the cache of their vectors."""
