"""Text to token ids: the native implementation, the one of `tokenizers`, and the choice between them."""
