"""Gradient steps after the conversion: projection, distillation and contrastive training."""
