"""Release of a trained student: its checkpoint, its bundle and its model card."""
