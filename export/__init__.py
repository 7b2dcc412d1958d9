"""From a checkpoint to a bundle: trace, finishing passes, writing, and proof that nothing was lost on the way."""
