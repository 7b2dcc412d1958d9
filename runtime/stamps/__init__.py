"""Stamps: what decides the bytes of vectors, kept with them."""
