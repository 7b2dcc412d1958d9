"""Hypothesis as a source of examples: the same ones in every run, and a failing one as it was drawn."""

import hypothesis


def repeatable(examples: int) -> hypothesis.settings:
    """Settings for so many examples, however long each takes."""
    return hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
