"""Searches for the layers to drop, by training candidates."""
