"""Files: bounded reading of untrusted ones, atomic writing, and records of JSON and TOML."""
