"""Smaller weights for a traced model, chosen by the role of each tensor and never by the type of its consumer."""
