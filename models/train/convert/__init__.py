"""Conversion of a dense teacher to a mixture of experts, in closed form."""
