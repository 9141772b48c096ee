"""benchmarks/gpu.py from end to end, on the processor, with a tiny model."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_it_runs():
    words = [sys.executable, "benchmarks/gpu.py", "--tiny", "--without_compile"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| ([\d.]+) x \|", done.stdout, re.MULTILINE)
    assert [name for name, *_ in rows] == ["stock_bf16", "best", "layerdrop, K = 0", "layerdrop, K = 2"]
    assert rows[0][2] == "1.00" and all(int(rate.replace(",", "")) > 0 for _, rate, _ in rows)
    assert re.search(r"runs per hour: [\d,]+ one after the other, [\d,]+ with 2 at once", done.stdout)
    assert "waits per step:" in done.stdout and "aten::addmm" in done.stdout
