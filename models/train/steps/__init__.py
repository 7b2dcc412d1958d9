"""Gradient steps after the conversion."""
