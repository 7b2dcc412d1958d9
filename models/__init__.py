"""The NomicBert-MoE network: its configuration, its PyTorch definition, its checkpoints and a numpy oracle."""
