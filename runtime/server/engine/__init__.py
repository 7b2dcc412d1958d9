"""The models that are served: their queue, their shared calls, and the tasks of their texts."""
