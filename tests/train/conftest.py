"""Fixtures of the training tests."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _torch_threads():
    """Restore the number of torch's threads, which `moembed train` sets: float32 sums depend on it."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
