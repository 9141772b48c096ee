"""Examples: reading them (hub, GLUE folder, own files), tokenising them, and making batches of them."""
