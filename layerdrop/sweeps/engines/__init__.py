"""Execution engines: persistent worker processes on this machine, or a Ray cluster."""
