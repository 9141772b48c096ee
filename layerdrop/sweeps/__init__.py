"""Studies of many runs: planning, execution with engines, progress."""
