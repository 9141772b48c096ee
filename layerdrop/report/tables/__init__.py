"""A module for each table: from a frame of runs to rows of words, and of values for programs."""
