"""NomicBert-MoE: nomic-embed-text-v2-moe and the built-in model."""
