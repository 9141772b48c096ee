"""layerdrop: drop layers of a pre-trained transformer encoder, fine-tune what is left, and report what that did."""

__version__ = "0.1.0"
