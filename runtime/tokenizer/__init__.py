"""Tokenization: the native backend, the `tokenizers` backend, and the choice between them."""
