"""Training and evaluation of a model on tokenized data. The trained model is an ordinary model of the library."""
