"""Training of the built-in model: a dense teacher is converted to a small NomicBert-MoE, which gradient steps then improve."""
