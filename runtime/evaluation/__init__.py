"""Quality of a model, a width and a precision on real tasks: retrieval, semantic similarity and translated pairs."""
