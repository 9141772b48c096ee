"""Training: from a model and tokenized data to the trained model, which is an ordinary one of the library again."""
