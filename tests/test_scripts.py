"""scripts/demo.sh, a newcomer's first command: its steps fit together."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_demo(tmp_path):
    """With two steps of training instead of five epochs, and the environment of the tests."""
    for name in ("run_glue.py", "layerdrop", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "scripts").mkdir()
    for name in ("demo.sh", "compare.py"):
        (tmp_path / "scripts" / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    (tmp_path / "scripts" / "environment.sh").write_text("")
    short = '[ "$1" = run_glue.py ] && set -- "$@" --max_steps 2 --max_eval_samples 20 --use_cpu'
    (tmp_path / "python").write_text(f'#!/usr/bin/env bash\n{short}\nexec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", tmp_path / "scripts" / "demo.sh"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("status     success") == 2 and "2,515,458 -> 1,325,826 (-47.3%)" in done.stdout
    compared = done.stdout.split("== 3.")[1]
    assert "full" in compared and "1,325,826 (-47%)" in compared
