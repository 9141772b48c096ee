"""Processes, files and text: what the rest of the project asks of the operating system."""
