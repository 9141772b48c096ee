"""A run's record, its folder, and all files in the folder."""
