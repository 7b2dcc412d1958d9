"""NomicBert without experts: nomic-embed-text-v1 and nomic-embed-text-v1.5."""
