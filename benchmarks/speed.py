#!/usr/bin/env python
"""How fast a whole run is, side by side with the stock recipe (benchmarks/stock.py), in alternating processes.

    python benchmarks/speed.py --model_name_or_path CHECKPOINT --data_dir GLUE [--tasks rte stsb sst2] [--full]

For each task and side: seconds from the command to the first step, for a step (50 steps after 8 to warm up) and for a
pass over the development set, added up to a run of three epochs. --full does whole runs instead. SST-2: the first
6,400 rows. Peak memory is the process's, or with a GPU that of its tensors there.
"""

import argparse
import gc
import itertools
import json
import math
import os
import platform
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sides import EXPLAINED, OURS, STOCK, add_arguments, command, output

ROWS = {"sst2": 6400}
BATCH, EPOCHS = 32, 3
WARM_UP, STEPS = 8, 50
SIDES = (*STOCK, *OURS)
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")
"""Events in which the processor waits for the device."""


# ---- one run, in a process of its own -------------------------------------------------------------------------------
def timed(script: str, words: list[str], warm_up: int, steps: int | None) -> None:
    """Run a script with the clock on its Trainer; prints a line of JSON. steps: stop after so many."""
    if Path(script).name == "run_glue.py":
        gc.disable()  # as it does itself before it imports what is imported below
    import torch
    from transformers import TrainerCallback, trainer

    import layerdrop.finetune.evaluate
    from layerdrop.runs.environment import peak_memory

    began = float(os.environ["BENCHMARK_BEGAN"])
    times: dict[str, list[float]] = {"begin": [], "end": []}
    evaluations: list[tuple[float, float]] = []  # when each began, and its seconds

    def catch_up():
        """A GPU may be some steps behind."""
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == warm_up:
                catch_up()
            times["begin"].append(time.time())

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == (steps or state.max_steps):
                catch_up()
            times["end"].append(time.time())
            if steps and state.global_step >= steps:
                control.should_training_stop = True

        def on_train_begin(self, args, state, control, **kwargs):
            times["steps"] = state.max_steps

    def on_the_clock(evaluate: Callable) -> Callable:
        def measured(*args, **kwargs):
            start = time.time()
            found = evaluate(*args, **kwargs)
            evaluations.append((start, time.time() - start))
            return found

        return measured

    trainer.Trainer.evaluate = on_the_clock(trainer.Trainer.evaluate)  # the stock recipe's
    layerdrop.finetune.evaluate.evaluate = on_the_clock(
        layerdrop.finetune.evaluate.evaluate
    )  # before anything imports it by name
    trainer.DEFAULT_CALLBACKS.append(Clock)
    sys.argv = [script, *words]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as done:
        if done.code:
            raise
    warm = list(zip(times["begin"], times["end"], strict=True))[warm_up:]
    step = None
    if warm:
        between = sum(seconds for start, seconds in evaluations if start < warm[-1][1])
        step = (warm[-1][1] - warm[0][0] - between) / len(warm)
    print(
        json.dumps(
            {
                "first_step": times["begin"][0] - began,
                "step": step,
                "steps": times["steps"],
                "evaluate": statistics.median(seconds for _, seconds in evaluations),
                "total": time.time() - began,
                "peak": peak_memory().get("cuda") or peak_memory()["host"],
            }
        )
    )


def profiled(script: str, words: list[str], warm_up: int) -> None:
    """Run a script up to its tenth step after warming up, and print where these ten steps spend their time."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    from transformers import TrainerCallback, trainer

    gpu = torch.cuda.is_available()
    profiler = profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * gpu)

    class Profile(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == warm_up:
                profiler.start()
            elif state.global_step == warm_up + 10:
                profiler.stop()
                by = "self_device_time_total" if gpu else "self_cpu_time_total"
                averages = profiler.key_averages()
                waits = sum(event.count for event in averages if event.key in WAITS)
                print(averages.table(sort_by=by, row_limit=20), f"waits per step: {waits / 10:g}", sep="\n", flush=True)
                os._exit(0)

    trainer.DEFAULT_CALLBACKS.append(Profile)
    sys.argv = [script, *words]
    runpy.run_path(script, run_name="__main__")


def run(side: str, task: str, args: argparse.Namespace, k: int = 0) -> dict[str, float]:
    """Measure one run. side: a name of SIDES."""
    flags = ["--max_train_samples", str(ROWS[task])] if task in ROWS else []
    flags += ["--drop_strategy", "top", "--drop_k", str(k)] if k else []
    flags += ["--seed", "42"] if side in OURS else []
    how = ["--profiled" if args.profile else "--timed", str(WARM_UP), "" if args.full else str(WARM_UP + STEPS)]
    with tempfile.TemporaryDirectory() as folder:
        words = [__file__, *how, *command(side, task, args, folder, *flags)]
        printed = output(words, BENCHMARK_BEGAN=str(time.time()))
        record = Path(folder) / "record.json"
        padding = json.loads(record.read_text())["padding_share"] if record.is_file() else math.nan
    if args.profile:
        print(f"{task}, {side}\n{printed}")
        return {}
    return json.loads(printed.strip().splitlines()[-1]) | {"padding": padding}


def whole(side: str, found: dict[str, float], full: bool) -> float:
    """Seconds of a run of three epochs."""
    if full:
        return found["total"]
    evaluations = EPOCHS if side == "ours" else 1
    return found["first_step"] + found["steps"] * found["step"] + evaluations * found["evaluate"]


def imports() -> float:
    """Seconds to import torch and transformers, in a process of their own."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, transformers"], check=True)
    return time.perf_counter() - start


# ---- the table ------------------------------------------------------------------------------------------------------
def main() -> None:
    """Measure and print."""
    text = f"{__doc__}\nsides:\n{EXPLAINED}"
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--tasks", nargs="+", default=["rte", "stsb", "sst2"])
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--half", action="store_true", help="also: ours with half of the layers dropped")
    parser.add_argument("--full", action="store_true", help="whole runs instead of parts that are added up")
    parser.add_argument("--profile", action="store_true", help="print where ten steps spend their time instead")
    args = parser.parse_args()
    if args.half and "ours" not in args.sides:
        parser.error("--half is a comparison with ours: add it to --sides")
    if args.profile:
        for task in args.tasks:
            for side in args.sides:
                run(side, task, args)
        return
    imports()
    print(f"importing torch and transformers: {imports():.2f} s")
    print("task   side       run s  first step s  ms/step  examples/s  evaluation s  peak GB  padding")
    for task in args.tasks:
        seen: dict[str, list[dict[str, float]]] = {}
        sides = [*args.sides, *(["ours K = half"] if args.half else [])]
        for _ in range(args.repeats):
            for side in sides:
                k = _half(args.model_name_or_path) if side == "ours K = half" else 0
                seen.setdefault(side, []).append(run(side.split()[0], task, args, k))
        runs = {}
        for side, found in seen.items():
            middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
            runs[side] = whole(side.split()[0], middle, args.full), middle["step"]
            rate = f"{1000 * middle['step']:7.1f}  {BATCH / middle['step']:10.1f}"
            print(
                f"{task:<6} {side:<9} {runs[side][0]:6.1f}  {middle['first_step']:12.2f}  {rate}"
                f"  {middle['evaluate']:12.2f}  {middle['peak'] / 1e9:7.2f}  {100 * middle['padding']:6.1f}%",
                flush=True,
            )
        for side, other in itertools.product([side for side in OURS if side in runs], ("stock", "best")):
            if other in runs:
                print(f"{task:<6} {side} is {runs[other][0] / runs[side][0]:.2f} x as fast as {other}")
        if "ours K = half" in runs:
            print(f"{task:<6} half of the layers: training {runs['ours'][1] / runs['ours K = half'][1]:.2f} x as fast")
    print(machine())


def _half(model: str) -> int:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model).num_hidden_layers // 2


def machine() -> str:
    """The machine and the versions, in a line."""
    from layerdrop.runs.environment import environment

    where = environment()
    versions = ", ".join(f"{name} {where['versions'][name]}" for name in ("torch", "transformers"))
    return f"{where['device']}, {where['cores']} cores, Python {platform.python_version()}, {versions}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--profiled"]:
        profiled(sys.argv[4], sys.argv[5:], int(sys.argv[2]))
    elif sys.argv[1:2] == ["--timed"]:
        timed(sys.argv[4], sys.argv[5:], int(sys.argv[2]), int(sys.argv[3]) if sys.argv[3] else None)
    else:
        main()
