"""Texts and pairs for training, and the repositories that they are gathered from."""
