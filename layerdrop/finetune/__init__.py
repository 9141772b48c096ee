"""Training: from a model and tokenised data to the trained model, which is an ordinary one of the library again."""
