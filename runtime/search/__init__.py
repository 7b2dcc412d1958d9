"""Local search: text files, their passages, and the vectors that are kept for them."""
