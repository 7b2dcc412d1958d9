"""Texts and pairs that training reads, and where they come from."""
