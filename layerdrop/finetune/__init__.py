"""Training and evaluation of a model on tokenized data."""
