"""The settings, the record and the folder of a run."""
