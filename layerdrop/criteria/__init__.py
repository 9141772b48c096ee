"""Selection of the layers to drop: scores, the table of criteria, and the selected ids."""
