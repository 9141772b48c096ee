"""scripts/demo.sh, a newcomer's first command: its steps fit together."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_demo(tmp_path):
    """With two steps of training instead of five epochs, and the environment of the tests."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "demo.sh").write_bytes((ROOT / "scripts" / "demo.sh").read_bytes())
    (tmp_path / "scripts" / "environment.sh").write_text("")
    short = '[ "$1" = run ] && set -- "$@" --max_steps 2 --max_eval_samples 20 --use_cpu'
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "layerdrop").write_text(
        f'#!/usr/bin/env bash\n{short}\nexec {sys.executable} -m layerdrop "$@"\n'
    )
    (tmp_path / "bin" / "layerdrop").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", tmp_path / "scripts" / "demo.sh"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("status     success") == 2 and "2,515,458 -> 1,325,826 (-47.3%)" in done.stdout
    compared = done.stdout.split("== 3.")[1]
    assert "full" in compared and "1,325,826 (-47%)" in compared
