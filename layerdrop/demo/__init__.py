"""The embedded default: a miniature pre-trained encoder and its tasks, in a small artificial English.

For trying the tool and for tests, not for conclusions about language.
"""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The miniature encoder, made by scripts/pretrain_demo.py."""
NAME = "demo"
"""What `--model_name_or_path` calls it."""
