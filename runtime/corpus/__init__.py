"""Corpora: files of texts in, shards of vectors out; a run that was killed goes on where it was."""
