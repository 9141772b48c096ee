#!/usr/bin/env python
"""Compare the time of run_glue.py with the stock recipe (benchmarks/stock.py), in alternating processes.

    python benchmarks/speed.py --model_name_or_path CHECKPOINT --data_dir GLUE [--tasks rte stsb sst2] [--full]

Measures for each task and side: seconds from the command to the first step, per step (50 steps after 8 warm-up steps),
and per pass over the validation set. The time of a run of three epochs is the sum of these parts. --full times
whole runs instead. SST-2 is limited to its first 6,400 rows. Peak memory: of the process; on a GPU, of its tensors.

sides:
  stock  the stock recipe with its defaults. Evaluates once at the end, saves nothing
  best   the stock recipe with its best flags, in bf16 where the hardware has it
  once   run_glue.py with one evaluation at the end. Saves the model
  ours   run_glue.py with its defaults. Evaluates after each epoch
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

from layerdrop.system.process import has_bf16

ROOT = Path(__file__).resolve().parent.parent
OURS = {"once": ["--eval_strategy", "no"], "ours": []}
STOCK = {"stock": [], "best": ["--padding", "batch", "--group"]}
"""Side -> flags. `best` also has --bf16 if the hardware supports it."""
GPU = {"stock_bf16": ["--bf16"], "compiled": ["--bf16", "--compile"]}
"""Additional sides of benchmarks/gpu.py."""
SIDES = (*STOCK, *OURS)
ROWS = {"sst2": 6400}
BATCH, EPOCHS = 32, 3
WARM_UP, STEPS = 8, 50
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")
"""Profiler events in which the processor waits for the device."""


# ---- one run, in a separate process ----------------------------------------------------------------------------------
class Times:
    """Times of a run's steps and evaluations."""

    def __init__(self, warm_up: int, steps: int | None):
        """steps: the number of steps to stop after."""
        from transformers import trainer

        import layerdrop.finetune.evaluate

        self.warm_up, self.steps, self.max_steps = warm_up, steps, 0
        self.begin: list[float] = []
        self.end: list[float] = []
        self.evaluations: list[tuple[float, float]] = []
        """(start, seconds) of each evaluation."""
        trainer.DEFAULT_CALLBACKS.append(self._callback())
        for owner in (trainer.Trainer, layerdrop.finetune.evaluate):  # before other modules import `evaluate` by name
            owner.evaluate = self._timed(owner.evaluate)

    def _callback(self) -> type:
        import torch
        from transformers import TrainerCallback

        def catch_up():
            """Wait until a GPU has finished all launched steps."""
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()

        class Clock(TrainerCallback):
            def on_train_begin(_, args, state, control, **kwargs):
                self.max_steps = state.max_steps

            def on_step_begin(_, args, state, control, **kwargs):
                if state.global_step == self.warm_up:
                    catch_up()
                self.begin.append(time.time())

            def on_step_end(_, args, state, control, **kwargs):
                if state.global_step == (self.steps or state.max_steps):
                    catch_up()
                self.end.append(time.time())
                control.should_training_stop |= bool(self.steps) and state.global_step >= self.steps

        return Clock

    def _timed(self, evaluate: Callable) -> Callable:
        def timed(*args, **kwargs):
            start = time.time()
            result = evaluate(*args, **kwargs)
            self.evaluations.append((start, time.time() - start))
            return result

        return timed

    @property
    def step(self) -> float | None:
        """Mean seconds of a step after the warm-up, without evaluations."""
        warm = list(zip(self.begin, self.end, strict=True))[self.warm_up :]
        if not warm:
            return None
        between = sum(seconds for start, seconds in self.evaluations if start < warm[-1][1])
        return (warm[-1][1] - warm[0][0] - between) / len(warm)


def timed(script: str, words: list[str], warm_up: int, steps: int | None) -> None:
    """Run a script with a clock on its Trainer, and print a line of JSON. steps: the number of steps to stop after."""
    if Path(script).name == "run_glue.py":
        gc.disable()  # as run_glue.py does before its imports
    from layerdrop.runs.environment import peak_memory

    times, began = Times(warm_up, steps), float(os.environ["BENCHMARK_BEGAN"])
    sys.argv = [script, *words]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as done:
        if done.code:
            raise
    result = {"first_step": times.begin[0] - began, "step": times.step, "steps": times.max_steps}
    result |= {"evaluate": statistics.median(seconds for _, seconds in times.evaluations)}
    peak = peak_memory()
    print(json.dumps(result | {"total": time.time() - began, "peak": peak.get("cuda") or peak["host"]}))


def profiled(script: str, words: list[str], warm_up: int) -> None:
    """Run a script up to the tenth step after the warm-up, and print a profile of these ten steps."""
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
    """Measure one run in a separate process. side: a name of SIDES or GPU."""
    ours = side in OURS
    flags = ["--max_train_samples", str(ROWS[task])] if task in ROWS else []
    flags += ["--drop_strategy", "top", "--drop_k", str(k)] if k else []
    flags += ["--bf16"] if side == "best" and has_bf16() else []
    mode = "--profiled" if args.profile else "--timed"
    with tempfile.TemporaryDirectory() as folder:
        flags += ["--seed", "42", "--output_dir", folder] if ours else []
        script = str(ROOT / ("run_glue.py" if ours else "benchmarks/stock.py"))
        words = [sys.executable, __file__, mode, str(WARM_UP), "" if args.full else str(WARM_UP + STEPS), script]
        words += ["--model_name_or_path", args.model_name_or_path, "--data_dir", args.data_dir, "--task_name", task]
        words += [*(STOCK | OURS | GPU)[side], *flags]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "BENCHMARK_BEGAN": str(time.time())}
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(words)}\n{done.stderr[-3000:]}")
        record = Path(folder) / "record.json"
        padding = json.loads(record.read_text())["padding_share"] if record.is_file() else math.nan
    if args.profile:
        print(f"{task}, {side}\n{done.stdout}")
        return {}
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"padding": padding}


# ---- the table ------------------------------------------------------------------------------------------------------
def measure(task: str, args: argparse.Namespace, half: int) -> None:
    """Time every side on a task, and print the medians. half: half of the model's depth."""
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(args.repeats):
        for side in [*args.sides, *["ours K = half"] * args.half]:
            runs.setdefault(side, []).append(run(side.split()[0], task, args, half * side.endswith("half")))
    total, step = {}, {}
    for side, measured in runs.items():
        middle = {name: statistics.median(result[name] for result in measured) for name in measured[0]}
        step[side], evaluations = middle["step"], EPOCHS if side.startswith("ours") else 1
        parts = middle["first_step"] + middle["steps"] * middle["step"] + evaluations * middle["evaluate"]
        total[side] = middle["total"] if args.full else parts
        print(
            f"{task:<6} {side:<13} {total[side]:6.1f}  {middle['first_step']:12.2f}  {1000 * step[side]:7.1f}  "
            f"{BATCH / step[side]:10.1f}  {middle['evaluate']:12.2f}  {middle['peak'] / 1e9:7.2f}  "
            f"{100 * middle['padding']:6.1f}%",
            flush=True,
        )
    for side, other in itertools.product([side for side in OURS if side in total], STOCK):
        if other in total:
            print(f"{task:<6} {side} is {total[other] / total[side]:.2f} x as fast as {other}")
    if args.half:
        print(f"{task:<6} half of the layers: training {step['ours'] / step['ours K = half']:.2f} x as fast")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--tasks", nargs="+", default=["rte", "stsb", "sst2"])
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--half", action="store_true", help="also time ours with half of the layers dropped")
    parser.add_argument("--full", action="store_true", help="time whole runs instead of the sum of parts")
    parser.add_argument("--profile", action="store_true", help="print a profile of ten steps instead")
    args = parser.parse_args()
    if args.half and "ours" not in args.sides:
        parser.error("--half: compares with `ours`. Add ours to --sides.")
    if args.profile:
        for task, side in itertools.product(args.tasks, args.sides):
            run(side, task, args)
        return
    from transformers import AutoConfig

    half = AutoConfig.from_pretrained(args.model_name_or_path).num_hidden_layers // 2
    print("task   side           run s  first step s  ms/step  examples/s  evaluation s  peak GB  padding")
    for task in args.tasks:
        measure(task, args, half)
    print(machine())


def machine() -> str:
    """The machine and the versions, in a line."""
    from layerdrop.runs.environment import environment

    where = environment()
    versions = ", ".join(f"{name} {where['versions'][name]}" for name in ("torch", "transformers"))
    return f"{where['device']}, {where['cores']} cores, Python {platform.python_version()}, {versions}"


def child(mode: str, warm_up: str, steps: str, script: str, *words: str) -> None:
    """Profile or time a script in this process, for `run` in the parent process. mode: --profiled or --timed."""
    if mode == "--profiled":
        profiled(script, list(words), int(warm_up))
    else:
        timed(script, list(words), int(warm_up), int(steps) if steps else None)


if __name__ == "__main__":
    if sys.argv[1:2] in (["--profiled"], ["--timed"]):
        child(*sys.argv[1:])
    else:
        main()
