"""Deployment: cost, export and predictions of models."""
