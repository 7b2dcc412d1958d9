"""The native library: its C++ sources, and the module that loads it."""
