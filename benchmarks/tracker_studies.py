"""A study of trivial trainings in layerdrop and in other tools. Used by benchmarks/trackers.py.

    python -m benchmarks.tracker_studies TOOL TRAININGS

Every tool trains two trainings at a time. The settings are those that its documentation gives for a study that may be
interrupted. In layerdrop, a training is a run of the demo model. In the other tools, it is 20 steps of gradient descent
that last 0.4 s. At the end, results.json has the number and the result of each training that the tool knows."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

LEDGER = "TRACKERS_LEDGER"
"""Environment variable of all processes of a study: the path of its ledger."""
WORKERS = int(os.environ.get("TRACKERS_WORKERS", 2))
STEPS, STEP_SECONDS = 20, 0.02


def note(word: str, number: int) -> None:
    """Add a line to the ledger: the time, a word, the process, the training. With `cpu`: milliseconds instead."""
    with open(os.environ[LEDGER], "ab", buffering=0) as ledger:
        ledger.write(f"{time.time():.4f} {word} {os.getpid()} {number}\n".encode())


def train(number: int) -> float:
    """The training of the other tools: gradient descent to `number`. `success`: the tool gets the result next."""
    note("train", number)
    weight = 0.0
    for _ in range(STEPS):
        weight -= 0.2 * (weight - number)
        time.sleep(STEP_SECONDS)
    note("trained", number)
    note("success", number)
    return weight


def layerdrop_words(trainings: int, folder: Path = Path()) -> list[str]:
    """Write the study of layerdrop into a folder. Returns the words of `layerdrop sweep`."""
    from benchmarks.faults import RECIPE
    from layerdrop.system.files import write_atomically

    write_atomically(folder / "recipe.yaml", RECIPE)  # several sweeps may read it
    grid = {"tasks": ["demo-rte"], "strategies": ["top"], "k": [11], "seeds": list(range(trainings))}
    write_atomically(folder / "study.yaml", json.dumps({"recipe": "recipe.yaml", "grid": grid}))
    return ["study.yaml", *f"--store runs --workers {WORKERS} --num_train_epochs 1".split()]


def layerdrop_study(trainings: int) -> dict[int, Any]:
    """`layerdrop sweep STUDY --workers 2`."""
    import run_glue
    from benchmarks.tracker_run import noted_run
    from layerdrop.cli.command import run_command
    from layerdrop.runs.store import Store

    run, run_glue.run = run_glue.run, noted_run
    code = run_command("sweep", layerdrop_words(trainings))
    run_glue.run = run
    if code:
        raise SystemExit(code)
    return {record.spec.seed: record.metrics for record in Store("runs").done()}


def ray_study(trainings: int) -> dict[int, float]:
    """The pattern "auto-resume" of Ray Tune's guide to fault tolerance, and its `FailureConfig(max_failures=3)`."""
    import ray
    from ray import tune

    ray.init(num_cpus=WORKERS, include_dashboard=False)

    def trainable(config):
        return {"weight": train(config["number"])}

    folder = os.path.abspath("experiment")
    if tune.Tuner.can_restore(folder):
        tuner = tune.Tuner.restore(folder, trainable, resume_errored=True)
    else:
        config = tune.RunConfig(
            name="experiment", storage_path=os.getcwd(), failure_config=tune.FailureConfig(max_failures=3)
        )
        space = {"number": tune.grid_search(list(range(trainings)))}
        tuner = tune.Tuner(trainable, param_space=space, run_config=config)
    results = tuner.fit()
    if results.errors:
        raise SystemExit(1)
    return {result.config["number"]: result.metrics["weight"] for result in results}


def ray_snapshots_study(trainings: int) -> dict[int, float]:
    """The same, but Ray Tune saves the state of the experiment after every event, not every 10 s."""
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "0"
    return ray_study(trainings)


def optuna_study(trainings: int) -> dict[int, float]:
    """Two processes with one SQLite file, a heartbeat, and the callback that repeats killed trials."""
    import optuna

    space = {"number": list(range(trainings))}
    storage = optuna.storages.RDBStorage(
        "sqlite:///study.db",
        engine_kwargs={"connect_args": {"timeout": 60}},
        heartbeat_interval=60,
        grace_period=120,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3),
    )
    sampler = optuna.samplers.GridSampler(space, seed=1)
    study = optuna.create_study(storage=storage, sampler=sampler, study_name="study", load_if_exists=True)
    if "OPTUNA_WORKER" in os.environ:
        if not sampler.is_exhausted(study):
            study.optimize(lambda trial: train(trial.suggest_categorical("number", space["number"])))
        return {}
    environment = os.environ | {"OPTUNA_WORKER": "1"}
    workers = [subprocess.Popen([sys.executable, *sys.argv], env=environment) for _ in "12"]
    if any([worker.wait() for worker in workers]):
        raise SystemExit(1)
    complete = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    return {trial.params["number"]: trial.value for trial in complete}


def hydra_study(trainings: int, check: bool = False) -> dict[int, float | None]:
    """`--multirun hydra/launcher=submitit_local` into one folder. check: skip trainings whose result file exists."""
    import hydra

    def job(config) -> None:
        path = Path(hydra.core.hydra_config.HydraConfig.get().runtime.output_dir, "result.json")
        if not (check and path.exists()):
            path.write_text(json.dumps(train(config.number)))

    numbers = ",".join(map(str, range(trainings)))
    sys.argv[1:] = ["--multirun", "hydra/launcher=submitit_local", f"hydra.sweeper.max_batch_size={WORKERS}"]
    sys.argv += ["hydra.sweep.dir=multirun", "hydra.sweep.subdir=${number}", f"+number={numbers}"]
    hydra.main(version_base=None, config_path=None)(job)()
    results: dict[int, float | None] = {}
    for path in Path("multirun").glob("*/result.json"):
        results[int(path.parent.name)] = None
        with suppress(ValueError):
            results[int(path.parent.name)] = json.loads(path.read_text())
    return results


STUDIES = {
    "layerdrop": ("layerdrop sweep", layerdrop_study),
    "ray": ("Ray Tune", ray_study),
    "ray_snapshots": ("Ray Tune, state saved after every event", ray_snapshots_study),
    "optuna": ("Optuna, SQLite", optuna_study),
    "hydra": ("Hydra, submitit", hydra_study),
    "hydra_check": ("Hydra, submitit, own check for a result", lambda trainings: hydra_study(trainings, check=True)),
}

if __name__ == "__main__":
    TOOL, NUMBER = sys.argv[1], int(sys.argv[2])
    Path("results.json").write_text(json.dumps(STUDIES[TOOL][1](NUMBER)))
