"""Corpora: files of texts in, shards of vectors out; a run that was killed goes on where it was."""

from moembed.corpus.rows import Selection
from moembed.corpus.runs import Options, Result, embed_files
from moembed.corpus.template import Template

__all__ = ["Options", "Result", "Selection", "Template", "embed_files"]
