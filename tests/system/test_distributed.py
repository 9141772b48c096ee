"""Several processes of one run: values and failures reach all of them, and none waits for one that is gone."""

import datetime
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from layerdrop.errors import UserError
from layerdrop.system import distributed
from layerdrop.system.distributed import (
    finish,
    from_first_process,
    gather,
    is_first,
    leave,
    leaves_group,
    log,
    rank,
    world_size,
)
from layerdrop.system.faults import fault
from layerdrop.system.process import OF_TORCHRUN, SIZES, check_launcher, give_own_address
from tests.processes import group_of


class Awkward(Exception):
    """Goes into pickle and does not come out."""

    def __init__(self, text, lock):
        super().__init__(text)


def attempt(function, error: BaseException | None = None) -> list[str] | None:
    """Call `function` in the first process; with an error, raise that one there. The exception of this process."""

    def fail():
        assert rank() == 0
        raise error

    try:
        from_first_process(fail if error else function)
    except BaseException as caught:
        return [type(caught).__name__, str(caught)]


def communicate(folder: Path, number: int) -> dict:
    """Results of collective operations in one of two processes."""

    def meet(name):
        timeout = datetime.timedelta(seconds=60)
        method = f"file://{folder}/{name}"
        torch.distributed.init_process_group("gloo", init_method=method, rank=number, world_size=2, timeout=timeout)

    @leaves_group
    def run(depth):
        if depth:
            run(depth - 1)
            return gather(f"{number} after the inner run")
        finish()
        return None

    @leaves_group
    def broken():
        raise ZeroDivisionError

    said = {}
    meet("first")
    said["group"] = [rank(), world_size()]
    said["value"] = from_first_process(lambda: {"rank": rank()})
    said["gathered"] = gather({"rank": rank()})
    errors = (UserError("one line"), ZeroDivisionError("a defect"), Awkward("text", None), KeyboardInterrupt())
    said["errors"] = [attempt(None, error) for error in errors]
    said["unpicklable"] = attempt(lambda: lambda: "a value that pickle cannot carry")
    finish()
    said["joined after finish"] = torch.distributed.is_initialized()
    meet("second")
    said["nested"] = run(1)
    said["joined after a run"] = torch.distributed.is_initialized()
    meet("third")
    began = time.monotonic()
    if number == 1:
        with pytest.raises(ZeroDivisionError):
            broken()
        said["joined after an error"] = torch.distributed.is_initialized()
        until_noticed = Path(folder, "noticed")
        while not until_noticed.exists() and time.monotonic() - began < 30:
            time.sleep(0.01)  # it is the leaving that is noticed, not the end of the process
        said["noticed"] = until_noticed.exists()
    else:
        with pytest.raises(ConnectionResetError):
            finish()
        Path(folder, "noticed").touch()
    return said


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Results of `communicate` in two processes, in the order of their ranks."""
    folder = tmp_path_factory.mktemp("meet")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ended = group_of(2, lambda number: print(json.dumps(communicate(folder, number))))
    assert [process.code for process in ended] == [0, 0], ended
    return [json.loads(process.out.splitlines()[-1]) for process in ended]


def test_a_value_of_the_first_process_reaches_all(said):
    assert [process["group"] for process in said] == [[0, 2], [1, 2]]
    assert [process["value"] for process in said] == [{"rank": 0}] * 2


def test_the_values_of_all_processes_reach_all(said):
    assert [process["gathered"] for process in said] == [[{"rank": 0}, {"rank": 1}]] * 2


def test_any_failure_of_the_first_process_reaches_all(said):
    first, second = (process["errors"] for process in said)
    assert first[:2] == second[:2] == [["UserError", "one line"], ["ZeroDivisionError", "a defect"]]
    assert first[2] == ["Awkward", "text"] and second[2] == ["RuntimeError", "Awkward: text"]
    assert first[3] == second[3] == ["KeyboardInterrupt", ""]
    assert "pickle" in said[0]["unpicklable"][1].lower() and said[0]["unpicklable"] == said[1]["unpicklable"]


def test_nobody_waits_for_a_process_that_left(said):
    assert said[1]["joined after an error"] is False and said[1]["noticed"] is True


def test_all_finish_together(said):
    assert said[0]["joined after finish"] is said[1]["joined after finish"] is False


def test_only_the_outermost_run_leaves_the_group(said):
    assert [process["nested"] for process in said] == [["0 after the inner run", "1 after the inner run"]] * 2
    assert [process["joined after a run"] for process in said] == [False, False]


def test_one_process_alone(monkeypatch):
    assert (rank(), world_size()) == (0, 1) and from_first_process(lambda: 3) == 3
    with pytest.raises(KeyError):
        from_first_process(lambda: {}["x"])
    finish()
    leave()


TORCHRUN = {"LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def launched(monkeypatch):
    """launched(variables): only these variables of launchers are set."""

    def launch(variables):
        for name in (*OF_TORCHRUN, *SIZES, "TORCHELASTIC_RUN_ID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return launch


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"RANK": "1"}, True),  # left by a scheduler
        ({"RANK": "1", "WORLD_SIZE": "1"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, True),
        ({"RANK": "1", "WORLD_SIZE": "1", **TORCHRUN}, True),
        ({"RANK": "0", "WORLD_SIZE": "2", **TORCHRUN}, True),
        ({"RANK": "1", "WORLD_SIZE": "2", **TORCHRUN}, False),
    ],
)
def test_one_process_is_the_first_one_whatever_rank_says(variables, first, launched):
    launched(variables)
    assert is_first() is first


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({}, None),
        ({"RANK": "1"}, None),
        ({"RANK": "1", "WORLD_SIZE": "1"}, None),
        ({"LOCAL_RANK": "-1"}, None),
        ({"RANK": "0", "WORLD_SIZE": "1", **TORCHRUN}, None),
        ({"RANK": "1", "WORLD_SIZE": "2", **TORCHRUN}, None),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1: is set without RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. Unset"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "WORLD_SIZE=2: is set without LOCAL_RANK, MASTER_ADDR, MASTER_PORT."),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE=2: is set without RANK"),
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE=abc: must be a whole number. Unset this variable, or start with torchrun."),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK=: must be a whole number."),
        ({"MASTER_PORT": "tcp://10.0.0.1:80"}, None),  # a service of this name in Kubernetes
        ({"RANK": "0", "WORLD_SIZE": "1", **TORCHRUN, "MASTER_PORT": "abc"}, None),
        ({"RANK": "0", "WORLD_SIZE": "2", **TORCHRUN, "MASTER_PORT": "abc"}, "MASTER_PORT=abc: must be the number"),
    ],
)
def test_variables_of_a_launcher_that_did_not_start_this_process(variables, line, launched):
    """The library would wait for the other processes, or end with `invalid literal for int()`."""
    launched(variables)
    before = dict(os.environ)
    if line is None:
        give_own_address()
        check_launcher()
        return
    with pytest.raises(UserError) as error:
        check_launcher()
    give_own_address()
    assert str(error.value).startswith(line) and dict(os.environ) == before


LEFT_OVER = {"RANK": "1", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "no.such.host", "MASTER_PORT": "abc"}


def test_one_process_needs_no_address(launched):
    """Left-over variables: the library would wait for their host. Those of torchrun's only process stay.

    The check alone, in a process of the caller's own, changes no variable.
    """
    for variables, address in ((LEFT_OVER, "localhost"), (LEFT_OVER | {"TORCHELASTIC_RUN_ID": "x"}, "no.such.host")):
        launched(variables | {"MASTER_PORT": "29500"})
        check_launcher()
        assert os.environ["MASTER_ADDR"] == "no.such.host" and os.environ["RANK"] == "1"
        give_own_address()
        assert os.environ["MASTER_ADDR"] == address
    launched(LEFT_OVER)
    give_own_address()
    check_launcher()
    torch.distributed.init_process_group("gloo")
    assert (rank(), world_size()) == (0, 1)
    leave()


def test_a_long_line_does_not_fill_the_terminal(capsys):
    log("x" * 10**6)
    assert len(capsys.readouterr().err) < 3000


@pytest.mark.parametrize("message", ["Connection closed by peer", "CUDA out of memory"])
def test_the_first_error_is_the_reason(monkeypatch, message):
    """The exception of the first process is raised, not that of the broadcast."""

    def ended(*args, **kwargs):
        raise RuntimeError(message)

    def stop():
        raise KeyboardInterrupt

    operations = dict.fromkeys(("broadcast_object_list", "all_gather_object", "barrier"), ended)
    group = SimpleNamespace(get_rank=lambda: 0, get_world_size=lambda: 2, **operations)
    monkeypatch.setattr(distributed, "_joined", lambda: group)
    with pytest.raises(KeyboardInterrupt):
        from_first_process(stop)
    for function in (finish, lambda: gather(1), lambda: from_first_process(lambda: 1)):
        with pytest.raises((ConnectionResetError, RuntimeError)) as error:
            function()
        line = fault(error.value) or ""
        assert ("another process of this run has ended, see its error above" in line) == ("peer" in message)
        assert "\n" not in line


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4242", True),
        (
            "[../gloo/transport/tcp/pair.cc:547] Read error [127.0.0.1]:4242: Connection reset by peer",
            True,
        ),
        ("[../gloo/transport/tcp/pair.cc:598] writev [127.0.0.1]:4242: Broken pipe", True),
        ("[../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv", True),
        ("NCCL error: a call failed possibly due to a network error or a remote process exiting prematurely", True),
        ("failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown or crash?", True),
        ("The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1", False),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", False),
        ("[enforce fail at allreduce.cc:30] op.preamble.length <= op.nbytes. 8 vs 4", False),
    ],
)
def test_only_a_lost_process_is_a_fault(monkeypatch, message, lost):
    def fail(*args, **kwargs):
        raise RuntimeError(message)

    monkeypatch.setattr(
        distributed, "_joined", lambda: SimpleNamespace(all_gather_object=fail, get_world_size=lambda: 2)
    )
    with pytest.raises(ConnectionResetError if lost else RuntimeError) as error:
        gather(1)
    assert message in str(error.value) and (fault(error.value) is not None) == lost
