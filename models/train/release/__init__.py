"""From a trained student to a checkpoint, a bundle and a model card."""
