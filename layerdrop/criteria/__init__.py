"""Which layers to drop: scores of layers, their table, and the selection of layer ids."""
