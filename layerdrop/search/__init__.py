"""Searches: train reduced models as candidates, and select the layers to drop."""
