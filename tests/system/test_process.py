import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from layerdrop.system import process

HERE = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
"""The environment of a process that imports this layerdrop."""


@pytest.fixture
def settings(monkeypatch):
    """The process's settings, put back afterwards."""
    for name in (*process.WAITING, "LRU_CACHE_CAPACITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(process, "_keep_freed_memory", lambda: None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    yield monkeypatch
    gc.enable()
    gc.unfreeze()
    for name in (*process.WAITING, "LRU_CACHE_CAPACITY"):
        os.environ.pop(name, None)


def test_no_library_is_imported_and_openmp_reads_the_setting():
    """In a process of its own: what is set before torch is imported reaches the library that torch's threads use."""
    code = """
import ctypes, importlib.util, pathlib, sys
from layerdrop.system.process import prepare_process
prepare_process()
prepare_process()
assert not {"torch", "numpy", "transformers"} & set(sys.modules)
folder = pathlib.Path(importlib.util.find_spec("torch").submodule_search_locations[0])
for path in [*folder.glob("lib/libgomp*"), *folder.parent.glob("torch.libs/libgomp*")]:
    ctypes.CDLL(str(path))
    print("loaded")
"""
    kept = {name: value for name, value in os.environ.items() if name not in process.WAITING}
    environment = kept | {"OMP_DISPLAY_ENV": "verbose"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    if not done.stdout:
        pytest.skip("this torch has no libgomp of its own")
    assert f"GOMP_SPINCOUNT = '{process.SPIN_COUNT}'" in done.stderr


@pytest.mark.parametrize("name", ["", *process.WAITING])
def test_how_threads_wait_is_the_users_choice_first(settings, name):
    if name:
        settings.setenv(name, "7")
    process.prepare_process()
    found = {key: os.environ[key] for key in process.WAITING if key in os.environ}
    assert found == ({name: "7"} if name else {"GOMP_SPINCOUNT": process.SPIN_COUNT})


def test_one_process_gets_an_address_of_its_own(settings):
    """Variables of a launcher that are left over."""
    for name in process.SIZES:
        settings.delenv(name, raising=False)
    settings.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name in process.OF_TORCHRUN:
        settings.setenv(name, "1")
    process.prepare_process()
    assert (os.environ["RANK"], os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("0", "localhost", "0")


def test_few_primitives_are_kept_unless_the_user_says_so(settings):
    process.prepare_process()
    assert os.environ["LRU_CACHE_CAPACITY"] == "1"
    settings.setenv("LRU_CACHE_CAPACITY", "9")
    process.prepare_process()
    assert os.environ["LRU_CACHE_CAPACITY"] == "9"


def test_freed_memory_is_kept(monkeypatch):
    """Both thresholds are raised, with the older library's limit as a second try."""
    calls = []
    accepts = {2**30: 0}
    library = SimpleNamespace(mallopt=lambda option, value: calls.append((option, value)) or accepts.get(value, 1))
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(process.sys, "platform", "linux")
    process._keep_freed_memory()
    assert calls == [(-3, 2**30), (-3, 2**25), (-1, 2**31 - 1)]
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: SimpleNamespace())  # another C library
    process._keep_freed_memory()


def test_garbage_collection_leaves_out_what_was_imported(settings):
    process.prepare_process()
    assert not gc.isenabled()
    before = gc.get_freeze_count()
    process.freeze_imports()
    assert gc.isenabled() and gc.get_freeze_count() > before
    after = gc.get_freeze_count()
    kept = [[] for _ in range(1000)]
    process.freeze_imports()  # a second time, with a model in memory perhaps
    assert gc.get_freeze_count() <= after and len(kept) == 1000


PRINTS = """
import sys
from layerdrop.system.process import tolerate_broken_output
tolerate_broken_output()
print("a\\N{GREEK SMALL LETTER ALPHA}", flush=True)
for _ in range(5000):
    print("x" * 100, file=sys.stderr)
    print("x" * 100)
print("traceback", file=sys.stderr, flush=True)
open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize(
    "words", [["run_glue.py"], ["-c", "from layerdrop.cli.command import main; main(['cost', 'x'])"]]
)
def test_a_python_without_the_packages_is_one_line(words):
    """Python without its installed packages (-S), as without the environment."""
    ended = subprocess.run([sys.executable, "-S", *words], cwd=HERE["PYTHONPATH"], capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stdout == "" and len(ended.stderr.splitlines()) == 1
    assert f"is not installed for {sys.executable}. Activate the environment (. .venv/bin/activate)" in ended.stderr


@pytest.mark.parametrize("name", ["layerdrop.absent", "numpi"])
def test_an_error_in_the_code_keeps_its_traceback(name):
    code = f"from layerdrop.system.process import prepare_process; prepare_process(); import {name}"
    ended = subprocess.run([sys.executable, "-c", code], env=HERE, capture_output=True, text=True)
    assert ended.returncode == 1 and "Traceback" in ended.stderr and name in ended.stderr


@pytest.mark.parametrize(
    "redirection", ["2>&1 | head -1", ">/dev/full 2>&1", ">&- 2>&-", "2>&-", "2>/dev/full | cat", "2>&1 | cat"]
)
def test_printing_never_fails_a_command(redirection, tmp_path):
    """A reader that has left, a full disk, a closed descriptor, an encoding without the character."""
    script, done = tmp_path / "x.py", tmp_path / "done"
    script.write_text(PRINTS)
    line = f"set -o pipefail; {sys.executable} {script} {done} {redirection} > {tmp_path}/out"
    line = line if "|" in redirection else f"{sys.executable} {script} {done} {redirection}"
    environment = HERE | {"PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0 and done.read_text() == "done", ended.stderr
    if redirection == "2>&1 | cat":
        assert (tmp_path / "out").read_text().startswith("a\\u03b1\n")


@pytest.mark.parametrize(
    ("redirection", "code", "line"),
    [
        ("> /dev/full", 1, "error: stdout: No space left on device. Free some space, then repeat the command.\n"),
        ("> cut", 1, "error: stdout: File too large. Correct this, then repeat the command.\n"),
        ("> /dev/full 2>&1", 1, ""),
        ("2> /dev/full", 0, ""),
        ("| head -1", 0, ""),
        (">&-", 0, ""),
        ("<&-", 0, ""),
    ],
)
def test_output_that_is_lost_is_an_error(redirection, code, line, tmp_path):
    """A prediction that is not written is lost. Only a reader may leave. A closed stdin is an empty one."""
    script = "import sys; from layerdrop.cli import command; command.overview = lambda words: run(); "
    script += "run = lambda: print(sys.stdin.isatty() or 'x\\n' * 10**5, flush=True); sys.exit(command.main([]) or 0)"
    call = f'ulimit -f 40; set -o pipefail; {sys.executable} -c "{script}" {redirection}'
    ended = subprocess.run(["bash", "-c", call], cwd=tmp_path, capture_output=True, text=True, env=HERE)
    assert (ended.returncode, ended.stderr) == (code, line)


def test_a_terminal_that_has_left_is_no_error():
    reader, writer = os.openpty()
    code = (
        "import os; from layerdrop.system.process import *; tolerate_broken_output(); input(); print(1, flush=True); "
    )
    code += "assert sys.stdout.buffer.raw.error; sys.exit(lost_output() is not None)"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=writer, env=HERE)
    os.close(writer)
    os.close(reader)
    child.communicate(b"\n")
    assert child.returncode == 0


class Cores:
    """Clocks of two cores and of this process, made up: seconds busy per second."""

    def __init__(self, monkeypatch, busy: tuple[float, ...], own: float):
        self.busy, self.own, self.now = busy, own, 100.0
        monkeypatch.setattr(process.time, "sleep", self.sleep)
        monkeypatch.setattr(process.time, "process_time", lambda: self.own * self.now)
        monkeypatch.setattr(psutil, "cpu_times", self.cpu_times)

    def sleep(self, seconds):
        self.now += seconds

    def cpu_times(self, percpu):
        return [
            SimpleNamespace(user=b * self.now / 2, system=b * self.now / 4, nice=b * self.now / 4) for b in self.busy
        ]


@pytest.mark.parametrize(
    ("cores", "busy", "own", "said"),
    [
        ((0, 1), (0.0, 0.0), 0.0, None),
        ((0, 1), (0.3, 0.1), 0.0, None),
        ((0, 1), (1.0, 0.0), 0.0, "1.0 of 2 cores"),
        ((0, 1), (1.0, 0.9), 1.0, "0.9 of 2 cores"),
        ((0, 1), (1.0, 0.0), 1.0, None),  # this process itself
        ((0,), (0.0, 1.0), 0.0, None),  # a core of others
        ((1,), (0.0, 1.0), 0.0, "1.0 of 1 cores"),
    ],
)
def test_other_processes_are_noted(monkeypatch, cores, busy, own, said):
    Cores(monkeypatch, busy, own)
    monkeypatch.setattr(process, "_cores", lambda: list(cores))
    note = process.busy_note()
    assert (note is None) == (said is None) and (said is None or said in note) and "\n" not in (note or "")


def test_the_real_clocks_are_read():
    start = time.perf_counter()
    note = process.busy_note(0.02)
    assert note is None or note.startswith(process.BUSY)
    assert 0.02 < time.perf_counter() - start < 5 and set(process._cores()) <= set(range(os.cpu_count()))
    first = process._busy_seconds(process._cores())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert process._busy_seconds(process._cores()) > first


def test_bf16_is_used_where_the_hardware_has_it(monkeypatch):
    import torch

    for capabilities, has in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert process.has_bf16() is process.has_bf16(use_cpu=True) is has
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert process.has_bf16() and not process.has_bf16(use_cpu=True)
