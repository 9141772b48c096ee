"""The tables of a report: convert a frame of runs to rows of text and machine-readable values."""
