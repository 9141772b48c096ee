#!/usr/bin/env python
"""Kill studies of ten trainings in layerdrop and in other tools, repeat them, and count what went wrong.

    python benchmarks/trackers.py kill --kills 30             trainings that are lost or trained again
    python benchmarks/trackers.py overhead --trainings 200    time for each training beside the training itself
    python benchmarks/trackers.py load --trainings 1000       eight sweeps on one store: CPU time while they wait

The studies are in benchmarks/tracker_studies.py. Kill I is after a random event of the trainings: a beginning, or a
result. Up to the mean time between two events passes before the kill. The seed is the same for all tools; if a command
ends before its kill, another event is drawn. The command is repeated until its exit code is 0. FOLDER/TOOL has a line
for each kill. Repeat the script to resume. The tools may be in separate processes, with --tools. Linux only."""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.faults import read_lines, trained_again
from benchmarks.tracker_studies import LEDGER, STUDIES, WORKERS, layerdrop_words

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = "ray[tune] pandas optuna hydra-core hydra-submitit-launcher"
IMPORTS = "import pandas, ray.tune, optuna, hydra_plugins.hydra_submitit_launcher"
TRAININGS, ATTEMPTS, TIMEOUT = 10, 4, 900
"""Trainings of a study that is killed; repetitions of a command; seconds until a command counts as hung."""
TARGETS = "all", "command", "training"
"""Processes to kill: all of the command, its first process, or that of the last training that began."""
FAULTS = {
    "lost": "finished trainings without a result",
    "again": "trainings that were trained after they had finished, or twice at the same time",
    "never": "trainings that were not finished, though the command ended with exit code 0",
    "differs": "results that differ from those of the undisturbed command",
    "hand": "kills after which no repetition ended with exit code 0",
}


class Study:
    """The command of a tool's study in an empty folder, and the ledger of its trainings."""

    def __init__(self, folder: Path, tool: str, trainings: int, python: str, ray_folder: str):
        self.folder, self.ledger, self.log = folder, folder.with_name("ledger.txt"), folder.with_name("log.txt")
        python = sys.executable if tool == "layerdrop" else python
        self.words = [python, "-m", "benchmarks.tracker_studies", tool, str(trainings)]
        self.environment = os.environ | {
            **{LEDGER: str(self.ledger), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            **{"HF_HUB_OFFLINE": "1", "RAY_TMPDIR": ray_folder, "RAY_USAGE_STATS_ENABLED": "0"},
            **{"RAY_AUTH_MODE": "disabled"},
        }
        self.kill_all()  # of an earlier execution of this script
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.ledger.write_bytes(b"")
        self.log.write_bytes(b"")

    def lines(self) -> list[list[str]]:
        """The lines of the ledger: time, word, process, number."""
        return [line.split() for line in self.ledger.read_text().splitlines()]

    def execute(self, kill: tuple[int, float, str] | None = None) -> tuple[int, bool]:
        """Execute the command once. Returns its exit code, and whether it was killed as planned.

        kill: number of the event, first 1; share of the mean time between two events; one of TARGETS.
        """
        with open(self.log, "ab") as log:
            process = subprocess.Popen(self.words, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        end, killed = time.time() + TIMEOUT, False
        while process.poll() is None and time.time() < end:
            time.sleep(0.01)
            if kill and not killed and time.time() >= moment(self.lines(), *kill[:2]):
                killed = self._kill(kill[2], process.pid)
        if process.poll() is None:
            self.kill_all()
        return process.wait(), killed

    def _kill(self, target: str, command: int) -> bool:
        if target == "all":
            self.kill_all()
            return True
        pids = {"command": [command], "training": training_processes(self.lines())[:1]}[target]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def kill_all(self) -> None:
        """Kill all processes of the study, until none is left."""
        while pids := self._processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _processes(self) -> list[int]:
        mark, pids = f"{LEDGER}={self.ledger}\0".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # of another user, or it has ended
                if mark in path.read_bytes():
                    pids.append(int(path.parent.name))
        return pids

    def results(self) -> dict[int, Any]:
        """Number of each training -> its result, after the command has ended with exit code 0."""
        return {int(number): value for number, value in json.loads((self.folder / "results.json").read_text()).items()}


def moment(lines: Iterable[Sequence[str]], event: int, share: float) -> float:
    """The time of a kill, in seconds; infinity before the event. Arguments: see Study.execute."""
    times = [float(line[0]) for line in lines if line[1] in ("train", "success")]
    if len(times) < event:
        return float("inf")
    return times[event - 1] + share * (times[event - 1] - times[0]) / max(1, event - 1)


def training_processes(lines: Iterable[Sequence[str]]) -> list[int]:
    """The processes whose last line is the beginning of a training, latest first."""
    last: dict[str, str] = {}
    for _, word, pid, _ in lines:
        last.pop(pid, None)
        last[pid] = word
    return [int(pid) for pid, word in reversed(last.items()) if word == "train"]


def count(
    lines: Iterable[Sequence[str]], results: Mapping[int, Any] | None, undisturbed: Mapping[int, Any]
) -> dict[str, list[int]]:
    """Kind of fault -> numbers of the trainings with this fault. results: None if no exit code was 0."""
    words = [line[1:] for line in lines]
    finished = {int(number) for word, _, number in words if word == "success"}
    faults = {"again": sorted(map(int, trained_again(words).elements()))}
    if results is None:
        return faults | {"hand": [1]}
    faults["lost"] = sorted(finished - set(results))
    faults["never"] = sorted(set(undisturbed) - finished - set(results))
    faults["differs"] = sorted(number for number, value in results.items() if value != undisturbed.get(number))
    return faults


def undisturbed(study: Study) -> dict[str, Any]:
    """Execute a study without a kill. Returns the first line of kills.jsonl. Raises SystemExit if the study fails."""
    if study.execute()[0] or len(results := study.results()) < TRAININGS:
        raise SystemExit(f"the undisturbed command fails: see {study.log}")
    return {"kill": -1, "results": results, "faults": count(study.lines(), results, results)}


def kill_study(study: Study, number: int, draw: random.Random, whole: Mapping[int, Any]) -> dict[str, Any] | None:
    """Kill a study, and repeat it. Returns the line of kills.jsonl; None if the command ended before the kill."""
    event, share, target = draw.randint(1, 2 * len(whole)), draw.random(), TARGETS[number % len(TARGETS)]
    code, killed = study.execute((event, share, target))
    codes = [code]
    while killed and codes[-1] and len(codes) <= ATTEMPTS:
        codes.append(study.execute()[0])
    study.kill_all()
    if not killed:
        return None
    faults = count(study.lines(), None if codes[-1] else study.results(), whole)
    return {"kill": number, "event": event, "share": share, "target": target, "codes": codes, "faults": faults}


def kill_tool(folder: Path, kills: int, seed: int, **settings: str) -> None:
    """Execute the kills of one tool that are not done yet. Kill -1 is the undisturbed command."""
    path = folder / "kills.jsonl"
    lines = [line for line in read_lines(path) if line["kill"] < kills]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    results = {int(number): value for line in lines for number, value in line.get("results", {}).items()}
    for number in sorted(set(range(-1, kills)) - {line["kill"] for line in lines}):
        draw, line = random.Random(f"{seed} {number}"), None
        while line is None:
            study = Study(folder / "work", trainings=TRAININGS, **settings)
            line = kill_study(study, number, draw, results) if results else undisturbed(study)
        results = results or line["results"]
        with open(path, "a") as file:
            file.write(f"{json.dumps(line)}\n")


def kill_table(folder: Path, tools: Iterable[str]) -> list[list[Any]]:
    """A row for each tool: kills, and trainings with each kind of fault. `undisturbed`: `again` without a kill."""
    rows: list[list[Any]] = [["tool", "kills", *FAULTS, "again, undisturbed"]]
    for tool in tools:
        lines = {line["kill"]: line["faults"] for line in read_lines(folder / tool / "kills.jsonl")}
        whole = lines.pop(-1, {}).get("again", [])
        faults = Counter(kind for line in lines.values() for kind, numbers in line.items() for _ in numbers)
        rows.append([STUDIES[tool][0], len(lines), *(faults[kind] for kind in FAULTS), len(whole)])
    return rows


# ---- overhead --------------------------------------------------------------------------------------------------------
def overhead(lines: Sequence[Sequence[str]], start: float, end: float) -> dict[str, float]:
    """Seconds until the first training; milliseconds of a worker for each training beside it; seconds at the end."""
    begun: dict[tuple[str, str], float] = {}
    training, times = 0.0, [float(line[0]) for line in lines]
    for at, (_, word, pid, number) in zip(times, lines, strict=True):
        if word == "train":
            begun[pid, number] = at
        elif word == "trained":
            training += at - begun[pid, number]
    total = WORKERS * (times[-1] - times[0]) - training
    return {"start": times[0] - start, "each": 1000 * total / len(begun), "end": end - times[-1]}


def overhead_table(folder: Path, tools: Iterable[str], trainings: int, **settings: str) -> list[list[Any]]:
    """A row for each tool. A tool that is measured already is not executed."""
    rows: list[list[Any]] = [["tool", "start (s)", "each training (ms)", "end (s)"]]
    for tool in tools:
        path = folder / tool / f"overhead_{trainings}.json"
        if not path.exists():
            study, start = Study(folder / tool / "work", tool, trainings, **settings), time.time()
            if study.execute()[0]:
                raise SystemExit(f"{tool}: the command fails: see {study.log}")
            path.write_text(json.dumps(overhead(study.lines(), start, time.time())))
            study.kill_all()
        values = json.loads(path.read_text())
        rows.append([STUDIES[tool][0], f"{values['start']:.1f}", f"{values['each']:.0f}", f"{values['end']:.1f}"])
    return rows


# ---- several sweeps on one store -------------------------------------------------------------------------------------
def cpu_seconds(pids: Iterable[int]) -> float:
    """Seconds of CPU that processes have used until now."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):  # it has ended
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def load(study: Study, trainings: int, sweeps: int, seconds: float = 30) -> dict[str, float]:
    """Start sweeps on a store whose runs are all locked. Measure while they wait, then unlock the runs.

    Returns the row of the table. seconds: length of the measurement, and half of the time before it.
    """
    from layerdrop.runs.folder import lock_folder

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    study.environment["TRACKERS_WORKERS"] = "1"
    words = [sys.executable, "-m", "layerdrop", "sweep", *layerdrop_words(trainings, study.folder), "--plan"]
    plan = subprocess.check_output(words, cwd=study.folder, env=study.environment, text=True)
    with ExitStack() as locks, open(study.log, "ab") as log:
        for name in re.findall(r"^missing +(\S+)$", plan, re.MULTILINE):
            locks.enter_context(lock_folder(f"{study.folder}/runs/{name}"))
        start = [
            subprocess.Popen(study.words, cwd=study.folder, env=study.environment, stdout=log, stderr=log)
            for _ in range(sweeps)
        ]
        while study.log.read_text().count("runs to do") < sweeps and all(process.poll() is None for process in start):
            time.sleep(1)
        time.sleep(2 * seconds)
        pids = study._processes()
        before = cpu_seconds(pids)
        time.sleep(seconds)
        after = cpu_seconds(pids)
    codes = [process.wait() for process in start]
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    training = sum(int(line[3]) for line in study.lines() if line[1] == "cpu") / 1000
    faults = count(study.lines(), None if any(codes) else study.results(), dict.fromkeys(range(trainings)))
    return {
        "runs": trainings, "sweeps": sweeps, "again": len(faults["again"]), "never": len(faults.get("never", "?")),
        "waiting, CPU of a sweep": round((after - before) / seconds / sweeps, 3),
        "each run, CPU (ms)": round(1000 * (usage.ru_utime + usage.ru_stime - after) / trainings),
        "of which training (ms)": round(1000 * training / trainings),
    }  # fmt: skip


def main(words: list[str] | None = None) -> int:
    """Execute what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("kill", "overhead", "load"))
    parser.add_argument("--kills", type=int, default=30, help="number of kills of each tool")
    parser.add_argument("--seed", type=int, default=1, help="seed of the kills")
    parser.add_argument("--trainings", type=int, default=200, help="overhead, load: number of trainings")
    parser.add_argument("--sweeps", type=int, default=8, help="load: number of sweeps on one store")
    parser.add_argument("--tools", nargs="+", choices=STUDIES, default=list(STUDIES), metavar="TOOL")
    parser.add_argument("--python", default=sys.executable, help="Python that has the other tools (default: this one)")
    parser.add_argument("--folder", type=Path, help="folder of the results (default: runs/trackers_seedS)")
    args = parser.parse_args(words)
    folder = (args.folder or Path(f"runs/trackers_seed{args.seed}")).absolute()  # a seed never reads another's kills
    if args.command == "load":
        args.tools = ["layerdrop"]
    if (
        args.tools != ["layerdrop"]
        and subprocess.run([args.python, "-c", IMPORTS], stderr=subprocess.DEVNULL).returncode
    ):
        print(
            f"error: {args.python} lacks packages. Execute `{args.python} -m pip install {PACKAGES}`.", file=sys.stderr
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as ray_folder:  # paths must be short
        settings = {"python": args.python, "ray_folder": ray_folder}
        if args.command == "kill":
            for tool in args.tools:
                kill_tool(folder / tool, args.kills, args.seed, tool=tool, **settings)
            rows = kill_table(folder, args.tools)
        elif args.command == "load":
            study = Study(folder / "load", "layerdrop", args.trainings, **settings)
            row = load(study, args.trainings, args.sweeps)
            rows = [list(row), list(row.values())]
        else:
            rows = overhead_table(folder, args.tools, args.trainings, **settings)
    rows.insert(1, ["---"] * len(rows[0]))
    print(*(f"| {' | '.join(map(str, row))} |" for row in rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
