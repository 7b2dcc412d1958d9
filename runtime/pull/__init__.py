"""Models by name: lookup, download, conversion and progress."""
