"""Helpers for processes, files and text. They import nothing else from the project except `errors`."""
