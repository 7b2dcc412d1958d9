"""Files as moembed reads and writes them: untrusted ones bounded, its own complete or not at all."""
