#!/usr/bin/env python
"""Kill commands at seeded points, repeat them, and count what went wrong.

    python benchmarks/faults.py --kills 1000 --seed 1

Kill I kills a process of one scenario (SCENARIOS, in turn) before a random event: see benchmarks/kill.py. The same
command is then repeated until it ends with exit code 0. The folder is compared with the folder of an undisturbed
command. FOLDER/kills.jsonl has a line for each kill. Repeat the command to resume. --break atomic, lock or status takes
out a part of layerdrop in the killed commands: the script must then report faults. Linux only.

    python benchmarks/faults.py --kills 36 --processes 2 --ways kill raise stop

Each run has two processes, as `torchrun` starts them. In turn, one of them is killed, one raises an exception, or
Ctrl-C stops both. A process that waits for the other one for two minutes is a fault (`hand`)."""

import argparse
import io
import json
import math
import os
import pickle
import random
import re
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before torch is imported
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.kill import NAMES, Attempt, Kill, Process, execute

ATTEMPTS = 4
"""Number of times that a command is repeated after a kill, at most."""
FAULTS = {
    "lost": "finished runs lost",
    "again": "finished runs trained again, or two processes train one run",
    "torn": "torn files taken as whole",
    "differs": "results that differ from the undisturbed command",
    "leftover": "files that the undisturbed command does not leave",
    "hand": "folders that need a hand",
}

# ---- scenarios -------------------------------------------------------------------------------------------------------
RECIPE = """\
model_name_or_path: demo
max_train_samples: 16
max_eval_samples: 16
max_predict_samples: 16
max_seq_length: 32
per_device_train_batch_size: 8
per_device_eval_batch_size: 16
num_train_epochs: 3
use_cpu: true
precision: fp32
report_to: none
"""
STUDY = """\
recipe: recipe.yaml
grid: {tasks: [demo-rte], strategies: [top], k: [9, 10, 11], seeds: [1]}
"""
RUN = "run recipe.yaml --task_name demo-rte --drop_strategy top --drop_k 9 --resume_from_checkpoint auto"
RUN += " --do_train --do_eval --do_predict --output_dir out"
SWEEP = "sweep study.yaml --store runs"
SMALL_SWEEP = f"{SWEEP} --k 10 11 --workers 1"


@dataclass(frozen=True)
class Scenario:
    """Commands that run at the same time, and the commands that prepare their folder."""

    commands: tuple[str, ...]
    before: tuple[str, ...] = ()


SCENARIOS = {
    "plain run": Scenario((RUN,)),
    "finetuned run": Scenario((f"{RUN} --drop_when finetuned",)),
    "gradual run": Scenario((f"{RUN} --drop_when gradual --drop_step 5 --drop_every_epochs 1",)),
    "Theseus run": Scenario((f"{RUN} --drop_when finetuned --theseus",)),
    "distilled run": Scenario((f"{RUN} --teacher auto --distill logits",)),
    "elastic run": Scenario((f"{RUN} --drop_when elastic --elastic_k 9",)),
    "sweep with 2 workers": Scenario((f"{SWEEP} --workers 2",)),
    "2 sweeps on one store": Scenario((f"{SWEEP} --workers 1", f"{SWEEP} --workers 1")),
    "search": Scenario(
        ("search recipe.yaml --task_name demo-rte --max_k 1 --method shortlist --store runs --workers 1",)
    ),
    "export": Scenario(("export out --force",), (RUN,)),
    "report": Scenario(("report runs --html page.html --runs runs.csv --figures figures",), (SMALL_SWEEP,)),
    "analysis": Scenario(
        ("layers profile --models demo --tasks demo-rte --max_train_samples 16 --store layers --figures figures",)
    ),
    "choose-k": Scenario(
        (
            "choose-k --tasks demo-rte --k 10 11 --store runs --figures figures --workers 1 --model_name_or_path demo "
            "--max_train_samples 16 --max_seq_length 32 --num_train_epochs 1 --use_cpu --precision fp32 "
            "--drop_strategy top",
        )
    ),
}
RUNS = [name for name in SCENARIOS if name.endswith(" run")]
"""Scenarios of one run, which can have several processes."""
WAYS = {
    "kill": "kill -9",
    "raise": "an exception in one process",
    "stop": "Ctrl-C, a signal to all processes",
}


def import_all() -> None:
    """Import what the commands import, once for all child processes."""
    import gc
    import pkgutil
    from importlib import import_module

    import torch

    import layerdrop

    torch.set_num_threads(1)
    # a forked process restarts PyTorch's pool of threads, which fails if two threads do it at the same time
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))
    for module in pkgutil.walk_packages(layerdrop.__path__, "layerdrop."):
        if not module.name.endswith(("__main__", "ray")):
            with suppress(ImportError):  # an optional package
                import_module(module.name)
    for name in ("run_glue", "sklearn.metrics", "matplotlib.backends.backend_pdf", "rich.console", "tabulate"):
        import_module(name)
    from layerdrop.architectures import ModelSpec
    from layerdrop.checkpoints import Checkpoint
    from layerdrop.loading import load_classifier

    load_classifier(Checkpoint.open(ModelSpec("demo")))
    gc.freeze()  # a child then collects only its own garbage


def processes_of(words: str, n: int) -> list[Callable[[], int]]:
    """Functions that execute a command in n processes, as `torchrun` starts them."""
    if n == 1:
        return [command(words)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [group | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(n)]
    return [command(words, variables) for variables in ranks]


def command(words: str, variables: Mapping[str, str] = {}) -> Callable[[], int]:
    """A function that executes a command of layerdrop in this process. variables: of its environment."""

    def call() -> int:
        os.environ.update(variables)
        from layerdrop.cli.command import run_command

        name, *rest = words.split()
        return run_command(name, rest)

    return call


def observe(process: Process) -> None:
    """Let a child process count training steps and evaluations, and note the beginnings and ends of trainings.

    Also write a checkpoint at the end of each epoch, however short it is.
    """
    from layerdrop.finetune import evaluate, interrupt
    from layerdrop.finetune.trainer import FineTuner
    from layerdrop.runs.record import RunRecord
    from layerdrop.system.process import handle_interrupts, is_first

    handle_interrupts()
    interrupt.CHECKPOINT_SECONDS, interrupt.CHECKPOINT_SHARE = 0.0, math.inf
    os.environ["SOURCE_DATE_EPOCH"] = "0"  # the date in a PDF

    train, step, logits, write = FineTuner.train, FineTuner.training_step, evaluate.logits_of, RunRecord.write

    def note(word: str, folder: str) -> None:
        if is_first():  # of the processes of a run
            process.note(word, str(os.getpid()), os.path.relpath(os.path.realpath(folder), process.work))

    def noted_train(self, *args):
        note("train", self.args.output_dir)
        result = train(self, *args)
        note("trained", self.args.output_dir)
        return result

    def noted_write(self):
        path = write(self)
        if self.status == "success":
            note("success", self.folder)
        return path

    def counted_step(self, *args):
        process.event(b"s")
        return step(self, *args)

    def counted_logits(*args, **kwargs):
        process.event(b"e")
        return logits(*args, **kwargs)

    FineTuner.train, FineTuner.training_step, RunRecord.write = noted_train, counted_step, noted_write
    replace_everywhere(logits, counted_logits)


# ---- breaking layerdrop on purpose -----------------------------------------------------------------------------------
def replace_everywhere(old: Any, new: Any) -> None:
    """Replace a function or class in every module that has imported it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("layerdrop.") or name == "run_glue":
            for attribute, value in list(vars(module).items()):
                if value is old:
                    setattr(module, attribute, new)


def break_atomic() -> None:
    """Write files in place."""
    from layerdrop.system.files import write_atomically

    def write(path: Path, content: str | bytes) -> None:
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content)

    replace_everywhere(write_atomically, write)


def break_lock() -> None:
    """Let every process have a lock."""
    from filelock import FileLock

    class NoLock:
        def __init__(self, *args, **kwargs):
            pass

        def acquire(self) -> None:
            pass

        release = acquire

    replace_everywhere(FileLock, NoLock)


def break_status() -> None:
    """Let every run count as missing."""
    from layerdrop.runs.status import Status, status_of

    replace_everywhere(status_of, lambda *args: Status("missing"))


BREAKS = {"atomic": break_atomic, "lock": break_lock, "status": break_status}


# ---- comparison ------------------------------------------------------------------------------------------------------
TIMES = ("runtime", "per_second", "seconds")
"""Parts of the keys of values that depend on the time that something took."""
VOLATILE = ("environment", "peak_memory_bytes", "padding_share", "resumed_at_step", "resumed", "notes", "folder")
"""Keys of records that describe how a result came about."""
MEANS = {
    "record.json": ("train_loss",),
    "trainer_state.json": ("train_loss", "loss"),
    "all_results.json": ("train_loss",),
}
"""Means over steps. Those of a resumed training are added in another order, so their last digits differ."""


def tree(folder: Path) -> dict[str, bytes | None]:
    """Relative path -> content of each file, None for a folder."""
    paths = (path for path in folder.rglob("*"))
    return {str(p.relative_to(folder)): None if p.is_dir() else p.read_bytes() for p in paths}


def result(name: str, content: bytes | None) -> Any:
    """What must not change of a file. Raises ValueError for a torn JSON file."""
    base = Path(name).name
    if content is None or base == "log.txt":
        return None
    if base == "training_args.bin":  # the bytes depend on which of its equal values are one object
        return settings(content)
    if base.endswith(".json"):
        values = json.loads(content)
        if base == "spec.json":
            values["files"] = sorted(values["files"])
        return _reproducible(values, MEANS.get(base.replace("train_results", "all_results"), ()))
    if base.endswith((".md", ".html")):  # a resumed run has no seconds, and a page has its time
        return re.sub(rb', \d+ s of training.*?(?=\. To repeat)|"made": "[^"]*"', b"", content)
    return content


def settings(content: bytes) -> str:
    """The values in a training_args.bin. Raises ValueError for a torn file."""
    import torch

    try:
        return str(torch.load(io.BytesIO(content), weights_only=False))
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(str(error)) from error


def _reproducible(values: Any, means: Sequence[str]) -> Any:
    """JSON values without those that may differ between two equal runs."""
    if isinstance(values, Mapping):
        kept = {k: v for k, v in values.items() if k not in VOLATILE and not any(part in k for part in TIMES)}
        rounded = {k: float(f"{kept[k]:.4g}") for k in means if isinstance(kept.get(k), float)}
        return {name: _reproducible(value, means) for name, value in (kept | rounded).items()}
    return [_reproducible(value, means) for value in values] if isinstance(values, list) else values


def compare(ended: Mapping[str, bytes | None], undisturbed: Mapping[str, bytes | None]) -> dict[str, list[str]]:
    """Kind of fault -> names of the files with this fault."""
    faults: dict[str, list[str]] = {"leftover": sorted(set(ended) - set(undisturbed))}
    faults["differs"] = sorted(set(undisturbed) - set(ended))
    faults["torn"] = []
    for name in sorted(set(ended) & set(undisturbed)):
        try:
            if result(name, ended[name]) != result(name, undisturbed[name]):
                faults["torn" if _is_torn(ended[name], undisturbed[name]) else "differs"].append(name)
        except ValueError:
            faults["torn"].append(name)
    return faults


def _is_torn(content: bytes | None, whole: bytes | None) -> bool:
    return bool(content is not None and whole and len(content) < len(whole) and whole.startswith(content))


def trained_again(ledger: Iterable[list[str]]) -> Counter:
    """Folder -> number of trainings after a success, and of trainings by two processes at the same time."""
    done, training, ended, again = set(), {}, [], Counter()
    for place, (word, pid, *rest) in enumerate(ledger):
        folder = " ".join(rest)
        if word == "train":
            training[folder, pid] = place
            again[folder] += folder in done
            done.discard(folder)
        elif word == "trained":
            start = training.pop((folder, pid))
            ended.append((folder, start))
            begun = [(name, place) for (name, _), place in training.items()] + ended
            again[folder] += any(name == folder and place > start for name, place in begun)
        elif word == "success":
            done.add(folder)
    return again


def lost(ledger: Iterable[list[str]], ended: Mapping[str, bytes | None]) -> list[str]:
    """Folders of runs that were a success and have no record of it."""

    def is_success(folder: str) -> bool:
        with suppress(ValueError, TypeError):
            return json.loads(ended.get(f"{folder}/record.json") or b"")["status"] == "success"
        return False

    folders = {" ".join(line[2:]) for line in ledger if line[0] == "success"}
    return sorted(folder for folder in folders if not is_success(folder))


# ---- one kill --------------------------------------------------------------------------------------------------------
class Benchmark:
    """The undisturbed commands of the scenarios, and kills of them."""

    def __init__(self, folder: Path, names: Iterable[str], broken: str | None, processes: int, ways: Iterable[str]):
        self.folder, self.broken, self.processes = folder, broken, processes
        self.names, self.ways = list(names), list(ways)
        self.bases: dict[str, Path] = {}
        self.undisturbed: dict[str, tuple[dict[str, bytes | None], Attempt]] = {}

    def prepare(self, name: str) -> None:
        """Execute the commands of a scenario without a kill. Raises SystemExit if one of them fails."""
        scenario, base = SCENARIOS[name], self.folder / "base" / name.replace(" ", "_")
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        (base / "recipe.yaml").write_text(RECIPE)
        (base / "study.yaml").write_text(STUDY)
        for words in scenario.before:
            self._undisturbed([words], base)
        work = self._work(base)
        attempt = self._undisturbed(scenario.commands, work)
        self.bases[name], self.undisturbed[name] = base, (tree(work), attempt)

    def _undisturbed(self, commands: Sequence[str], work: Path) -> Attempt:
        attempt = execute(self._functions(commands), work, observe)
        if any(attempt.codes):
            raise SystemExit(f"{'; '.join(commands)}: exit codes {attempt.codes}\n{attempt.output}")
        return attempt

    def _functions(self, commands: Sequence[str]) -> list[Callable[[], int]]:
        return [function for words in commands for function in processes_of(words, self.processes)]

    def _work(self, base: Path) -> Path:
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work)
        return work

    def kill(self, number: int, seed: int) -> dict[str, Any]:
        """Kill a command once, and repeat it. Returns the line of kills.jsonl."""
        name, draw = self.names[number % len(self.names)], random.Random(f"{seed} {number}")
        way = self.ways[number // len(self.names) % len(self.ways)]
        if name not in self.bases:
            self.prepare(name)
        start, scenario = time.monotonic(), SCENARIOS[name]
        undisturbed, whole = self.undisturbed[name]
        while True:
            work = self._work(self.bases[name])
            cut = draw.choice((None, None, None, 0, 100, 10_000))
            kill = Kill(draw.randint(1, len(whole.events)), draw.random() < 0.5, cut, way)
            attempts = [self._attempt(scenario, work, kill)]
            if attempts[0].killed:
                break
        while any(attempts[-1].codes) and len(attempts) <= ATTEMPTS and not attempts[-1].hung:
            attempts.append(self._attempt(scenario, work))
        ended, ledger = tree(work), [line for attempt in attempts for line in attempt.ledger]
        faults = compare(ended, undisturbed) if not any(attempts[-1].codes) else {}
        faults |= {"lost": lost(ledger, ended), "again": sorted(trained_again(ledger) - trained_again(whole.ledger))}
        faults["hand"] = [attempts[-1].output[-500:]] if any(attempts[-1].codes) else []
        faults = {kind: names for kind, names in faults.items() if names}
        if faults:
            shutil.rmtree(kept := self.folder / f"fault_{number}", ignore_errors=True)
            shutil.copytree(work, kept)
        return {
            "kill": number, "scenario": name, "way": way, "event": kill.event, "of": len(whole.events),
            "before": NAMES[attempts[0].events[kill.event - 1]], "cut": kill.cut, "with_command": kill.command,
            "codes": [attempt.codes for attempt in attempts], "seconds": round(time.monotonic() - start, 1),
            "faults": faults,
        }  # fmt: skip

    def _attempt(self, scenario: Scenario, work: Path, kill: Kill | None = None) -> Attempt:
        def prepare(process: Process) -> None:
            observe(process)
            if self.broken:
                BREAKS[self.broken]()

        return execute(self._functions(scenario.commands), work, prepare, kill)


# ---- table -----------------------------------------------------------------------------------------------------------
def table(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """A row for each scenario: number of kills, and of kills with each kind of fault."""
    kills, faults = Counter(), Counter()
    for line in lines:
        for name in (line["scenario"], "all"):
            kills[name] += 1
            faults.update((name, kind) for kind in line["faults"])
    rows = [["scenario", "kills", *FAULTS], ["---"] * (2 + len(FAULTS))]
    rows += [
        [name, kills[name], *(faults[name, kind] for kind in FAULTS)] for name in (*SCENARIOS, "all") if kills[name]
    ]
    return [f"| {' | '.join(map(str, row))} |" for row in rows]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of kills.jsonl. A torn last line is left out."""
    lines = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError):
            lines.append(json.loads(line))
    return lines


def main(words: list[str] | None = None) -> int:
    """Execute the kills that are not done yet, and print the table. Returns 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="number of kills")
    parser.add_argument("--seed", type=int, default=1, help="seed of the events")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--break", dest="broken", choices=BREAKS, help="part of layerdrop to take out")
    parser.add_argument("--processes", type=int, default=1, help="processes of each run, as torchrun starts them")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["kill"], help="how a process fails, in turn")
    parser.add_argument("--folder", type=Path, help="folder of the results (default: runs/faults_seedS)")
    args = parser.parse_args(words)
    names = [name for name in args.scenarios if args.processes == 1 or name in RUNS]
    if not names:
        parser.error(f"--processes {args.processes}: only with a scenario of one run: {', '.join(RUNS)}")
    settings = [f"seed{args.seed}", args.broken, f"{args.processes}_processes" if args.processes > 1 else None]
    folder = args.folder or Path("runs/faults_" + "_".join(filter(None, settings)))
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "kills.jsonl"
    lines = [line for line in read_lines(path) if line["kill"] < args.kills]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    missing = sorted(set(range(args.kills)) - {line["kill"] for line in lines})
    if missing:
        import_all()
    benchmark = Benchmark(folder, names, args.broken, args.processes, args.ways)
    for number in missing:
        lines.append(line := benchmark.kill(number, args.seed))
        with open(path, "a") as file:
            file.write(f"{json.dumps(line)}\n")
        if line["faults"]:
            print(json.dumps(line), file=sys.stderr, flush=True)
    print(*table(lines), sep="\n")
    return int(any(line["faults"] for line in lines))


if __name__ == "__main__":
    sys.exit(main())
