"""NomicBert-MoE network: configuration, PyTorch definition, checkpoints and a numpy oracle."""
