"""Analyses of results and models: significance, tolerance, layers, probing."""
