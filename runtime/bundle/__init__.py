"""Bundles: format, integrity checks, certificate, and sources."""
