"""Operating system and plain helpers: processes, files, text. Imports nothing of the project except errors."""
