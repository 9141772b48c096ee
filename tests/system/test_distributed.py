"""Several processes of one run: values and failures reach all of them, and none waits for one that is gone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from layerdrop.system.distributed import finish, from_first_process, is_first, leave, rank, world_size

ROOT = Path(__file__).parent.parent.parent
PROCESS = """
import json, sys, time, datetime, torch
from layerdrop.system.distributed import finish, from_first_process, is_first, leave, rank, world_size
from layerdrop.errors import UserError

class Awkward(Exception):
    def __init__(self, text, lock):  # goes into pickle and does not come out
        super().__init__(text)

def fail(error):
    def function():
        assert rank() == 0
        raise error
    return function

folder, number = sys.argv[1], int(sys.argv[2])
def meet(name):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/{name}", rank=number, world_size=2,
                                         timeout=datetime.timedelta(seconds=60))
meet("first")
said = [[rank(), world_size()], from_first_process(lambda: {"rank": rank()})]
def attempt(function):
    try:
        from_first_process(function)
    except BaseException as error:
        said.append([type(error).__name__, str(error)])
attempt(fail(UserError("one line")))
attempt(fail(ZeroDivisionError("a defect")))
attempt(fail(Awkward("text", None)))
attempt(fail(KeyboardInterrupt()))
attempt(lambda: lambda: "a value that pickle cannot carry")
finish()
said.append(torch.distributed.is_initialized())
meet("second")
began = time.monotonic()
if number == 1:
    leave()
    said.append(torch.distributed.is_initialized())
else:
    try:
        finish()
        said.append("finished")
    except RuntimeError:
        said.append(time.monotonic() - began < 20)
print(json.dumps(said), flush=True)
if number == 1:
    time.sleep(float(sys.argv[3]))  # it is the leaving that is noticed, not the end of the process
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What two processes print, in the order of their ranks."""
    folder = str(tmp_path_factory.mktemp("meet"))
    words = [sys.executable, "-c", PROCESS, folder]
    processes = [
        subprocess.Popen([*words, number, "3"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in "01"
    ]
    outputs = [process.communicate(timeout=100) for process in processes]
    assert all(out for out, _ in outputs), outputs
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def test_a_value_of_the_first_process_reaches_all(said):
    assert [process[:2] for process in said] == [[[0, 2], {"rank": 0}], [[1, 2], {"rank": 0}]]


def test_any_failure_of_the_first_process_reaches_all(said):
    first, second = (process[2:7] for process in said)
    assert first[:2] == second[:2] == [["UserError", "one line"], ["ZeroDivisionError", "a defect"]]
    assert first[2] == ["Awkward", "text"] and second[2] == ["RuntimeError", "Awkward: text"]
    assert first[3] == second[3] == ["KeyboardInterrupt", ""]
    assert "pickle" in first[4][1].lower() and first[4] == second[4]


def test_nobody_waits_for_a_process_that_left(said):
    assert said[1][8] is False and said[0][8] is True


def test_all_finish_together(said):
    assert said[0][7] is said[1][7] is False


def test_one_process_alone(monkeypatch):
    assert (rank(), world_size()) == (0, 1) and from_first_process(lambda: 3) == 3
    with pytest.raises(KeyError):
        from_first_process(lambda: {}["x"])
    finish()
    leave()


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"RANK": "1"}, True),  # left by a scheduler
        ({"RANK": "1", "WORLD_SIZE": "1"}, True),
        ({"RANK": "0", "WORLD_SIZE": "2"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, False),
    ],
)
def test_one_process_is_the_first_one_whatever_rank_says(variables, first, monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first() is first
