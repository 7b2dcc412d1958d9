"""Hypothesis settings for repeatable examples, without shrinking."""

import hypothesis


def repeatable(examples: int) -> hypothesis.settings:
    """Return settings for a number of examples, without a time limit per example."""
    return hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
