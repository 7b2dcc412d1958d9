"""What a model, a width and a precision are worth on real tasks: retrieval, semantic similarity and translated pairs."""
