"""The native library: its C++ sources, and what loads it."""
