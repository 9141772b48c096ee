"""What a comparison of models says beyond its scores."""
