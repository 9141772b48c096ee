"""benchmarks/gpu.py from end to end, on the processor, with a tiny model."""

import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.kill import fork_workers
from layerdrop.cli.command import run_command
from tests.processes import Forked

ROOT = Path(__file__).parent.parent.parent


def test_it_runs(monkeypatch, tmp_path, capsys):
    """The processes that it starts are copies of this process: none imports torch again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu
    import speed

    started, run = [], subprocess.run

    def start(words, check=False, env=None, **settings):
        """In place of subprocess.run."""

        def execute():
            subprocess.run = run
            fork_workers()
            os.environ.update(env or {})
            if words[1] == "-m":
                return run_command(words[3], words[4:])
            return speed.child(*words[2:])

        if words[0] != sys.executable:
            return run(words, check=check, env=env, **settings)
        started.append(words)
        ended = Forked(execute).wait()
        assert ended.code == 0, ended
        return subprocess.CompletedProcess(words, ended.code, ended.out, ended.err)

    monkeypatch.setattr(subprocess, "run", start)
    monkeypatch.setattr(speed, "WARM_UP", 2)
    monkeypatch.setattr(speed, "STEPS", 6)
    assert gpu.main(["--tiny", "--without_compile"]) == 0
    out = capsys.readouterr().out
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| ([\d.]+) x \|", out, re.MULTILINE)
    assert [name for name, *_ in rows] == ["stock_bf16", "best", "layerdrop, K = 0", "layerdrop, K = 2"]
    assert rows[0][2] == "1.00" and all(int(rate.replace(",", "")) > 0 for _, rate, _ in rows)
    assert re.search(r"runs per hour: [\d,]+ one after the other, [\d,]+ with 2 at once", out)
    assert "waits per step:" in out and "aten::addmm" in out
    assert len(started) == 7  # four sides, two studies, a profile


def test_it_starts_as_a_command():
    words = [sys.executable, "benchmarks/gpu.py", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--without_compile" in done.stdout, done.stderr
