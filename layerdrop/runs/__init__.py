"""The record of a run, the folder that holds it, and everything that is written there."""
