"""Tasks, rows (hub, GLUE folder, own files, datasets), tokens and batches."""
