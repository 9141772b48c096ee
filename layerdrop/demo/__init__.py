"""The embedded demo: a miniature pre-trained encoder, and five tasks in an artificial language as GLUE folders.

For trying the tool and for tests, not for conclusions about language. `scripts/pretrain_demo.py` and
`scripts/demo_language.py` make the files.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Contains `checkpoint`, and a folder for each task: `demo-RTE/train.tsv`, `dev.tsv`, `test.tsv`."""
