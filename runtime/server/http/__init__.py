"""HTTP layer: middleware, paths, request bodies and responses."""
