"""Engines of others: Ray and Spark."""
