"""Export of a checkpoint to a bundle: trace, graph passes, writing, and comparison with the network."""
