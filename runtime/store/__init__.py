"""Data folder of the user: bundles that moembed converted, by the model's name; locks, sizes and removal."""
