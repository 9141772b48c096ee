"""The tables of a report: from a frame of runs to rows of words, and to values for programs."""
