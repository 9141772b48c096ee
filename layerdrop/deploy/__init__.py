"""Models to deploy: ONNX files, checked and evaluated before they are handed out."""
