"""Bundles: their format, their files checked, their certificate, and where they come from."""
