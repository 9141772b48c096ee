"""Many runs: studies, their execution by engines, progress."""
