"""The command line: `layerdrop COMMAND`, one module for each command."""
