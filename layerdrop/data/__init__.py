"""Tasks, rows (hub, GLUE folder, own files), tokens and batches."""
