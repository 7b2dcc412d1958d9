"""Checks of a bundle on the user's machine: stability, distance from a reference, and its certificate measured again."""
