"""A study: a grid of runs from YAML, as a list of jobs."""

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from layerdrop.architectures import HubOptions, ModelSpec
from layerdrop.checkpoints import Checkpoint, work_offline_unless_reachable
from layerdrop.errors import UserError
from layerdrop.finetune.spec import WhenSpec
from layerdrop.runs.checks import check_selection
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.store import PRIOR_FOLDER, SCORE_FOLDER, Store
from layerdrop.sweeps.engines.base import Job
from layerdrop.system.settings import STUDY, kind_of, read_settings
from layerdrop.system.text import one_line

Parse = Callable[[Mapping[str, Any], Sequence[str]], Any]
"""(flag -> value, further words of a command line) -> checked arguments of a run. Raises UserError."""
AXES = {
    "models": "model_name_or_path",
    "tasks": "task_name",
    "strategies": "drop_strategy",
    "k": "drop_k",
    "seeds": "seed",
}
"""Name of an axis -> the flag that it varies. Any other flag of a run can be an axis under its own name."""
KEYS = ("recipe", "settings", "grid", "exclude")
ELSEWHERE = "Correct the path, unless another machine executes the runs."
MOST_CELLS = 100_000
"""Maximum number of cells of a grid."""
QUIET = {"save_model": "no", "disable_tqdm": True, "report_to": "none"}
"""Default settings of a study's runs. Saving the weights of hundreds of runs would fill a disk."""
SINGLE_RUN_FLAGS = {
    "dry_run": "previews a single run. {preview}",
    "json": "prints a single run (--dry_run). Each run writes record.json into its folder. Leave --json out",
    "output_dir": "is the folder of a single run. Use --store FOLDER for many",
    "overwrite_output_dir": "starts a single run over. Delete the folders of the runs to repeat",
    "run_name": "names a single run. Many runs are named after their folders. Leave --run_name out",
    "resume_from_checkpoint": "is not needed: repeat the command to execute missing runs. Leave this flag out",
}
"""Flags of run_glue.py that are invalid for many runs -> the reason and the alternative."""


@dataclass
class Study:
    """The different runs of a study, in the order of the file, and the impossible runs."""

    name: str
    jobs: list[Job] = field(default_factory=list)
    impossible: dict[str, str] = field(default_factory=dict)
    """Name of an impossible run -> reason (for example a K that the strategy cannot drop from the model)."""
    notes: list[str] = field(default_factory=list)
    """Notes on axes and settings without effect, and on models and data that this machine cannot read (a cluster node
    may)."""
    gives_precision: bool = True
    """Whether the user gave the precision of every run. Otherwise, it was chosen for this machine."""


def read_study(
    path: str,
    store: str,
    parse: Parse,
    axes: Mapping[str, list[Any] | None] | None = None,
    flags: Sequence[str] = (),
    recipe: str | None = None,
) -> Study:
    """Read the study in a YAML file.

    store: the folder of its runs. axes: values that replace an axis in every grid. flags: further flags for every run.
    recipe: a file of flags that replaces the study's recipe. Raises UserError for errors in the file and in its flags.
    """
    content = _read(path)
    if recipe is None and content.get("recipe"):
        recipe = str(Path(path).parent / Path(os.path.expanduser(content["recipe"])))
    own = content.get("settings") or {}
    fixed, flags_of_all = _split_settings(path, own)
    settings = (read_settings(recipe) if recipe else {}) | flags_of_all
    grids, exclude = _mappings(path, content, "grid"), _mappings(path, content, "exclude")
    _check_axes(path, grids, exclude)
    names = [*settings, *(name for grid in grids for name in grid)]
    refuse_flags_of_one_run([*(f"--{name}" for name in names), *flags], "Use --plan to list the runs of the study")
    planner = _Planner(Study(Path(path).stem), Store(store), parse, QUIET | settings, flags)
    replaced_axes = {name: values for name, values in (axes or {}).items() if values}
    given = {_dashless(word.partition("=")[0]) for word in flags}
    in_file = {f"--{AXES.get(name, name)}": f"{path}: settings: {name}" for name in own}
    in_file = {flag: name for flag, name in in_file.items() if _dashless(flag) not in given}
    for grid in (grid | replaced_axes for grid in [grid for grid in grids if grid] or [{}]):
        planner.names = in_file | {f"--{AXES.get(axis, axis)}": axis for axis in grid}
        if grid := {name: value for name, value in fixed.items() if AXES[name] not in grid} | grid:
            planner.add_grid(path, grid, exclude)
    for name in idle_settings(own, grids):
        planner._note(f"settings: '{name}' has no effect, because every grid gives it")
    planner.keep_needed_models()
    study = planner.study
    if not study.jobs and not study.impossible:
        raise UserError(f"{path}: its grid has no run. Give axes ({', '.join(AXES)}) with values.")
    if not study.jobs:
        name, why = next(iter(study.impossible.items()))
        raise UserError(
            f"{path}: none of its {len(study.impossible)} runs is possible. {name}: {why.removeprefix(f'{path}: ')}"
        )
    return study


# ---- the file --------------------------------------------------------------------------------------------------------
def _read(path: str) -> dict[str, Any]:
    content = read_settings(path, STUDY)
    if content and not any(get_close_matches(key, KEYS, n=1) for key in content):
        raise UserError(
            f"{path}: not a study, because it has no 'grid'. Start a single run with: layerdrop run {path} "
            f"(or use it for every run of a study: --recipe {path})"
        )
    for key in content:
        if key not in KEYS:
            near = get_close_matches(str(key), KEYS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UserError(f"{path}: unknown key '{key}'.{hint} Allowed: {', '.join(KEYS)}.")
    if not isinstance(content.get("recipe") or "", str):
        raise UserError(
            f"{path}: 'recipe' must be the path of a file of flags, not {kind_of(content['recipe'])}. Put flags of "
            "this study under 'settings'."
        )
    if not isinstance(content.get("settings") or {}, dict):
        raise UserError(
            f"{path}: 'settings' must be a mapping of flags to values, not {kind_of(content['settings'])}. Write it as "
            "`settings: {learning_rate: 3e-5}`."
        )
    return content


def _split_settings(path: str, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(axes with one value, other flags) of a study's settings. Each grid gets the axes that it lacks."""
    axes = {name: value for name, value in settings.items() if name in AXES}
    for name, value in axes.items():
        if AXES[name] in settings:
            raise UserError(f"{path}: settings: '{name}' and '{AXES[name]}' are the same. Leave one of them out.")
        if len(_values(value)) != 1 or isinstance(value, dict):
            example = f"`grid: {{{name}: [{', '.join(map(str, _values(value)))}]}}`"
            raise UserError(f"{path}: settings: {name}: takes one value. Put an axis under 'grid', as {example}.")
    return axes, {name: value for name, value in settings.items() if name not in AXES}


def _mappings(path: str, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The entries of `grid` or `exclude`, whose names are axes."""
    entries = content.get(key) or ({} if key == "grid" else [])
    entries = [entries] if isinstance(entries, dict) else entries
    listed = isinstance(entries, list)
    if not listed or not all(isinstance(entry, dict) for entry in entries):
        wrong = next((entry for entry in entries if not isinstance(entry, dict)), None) if listed else entries
        raise UserError(
            f"{path}: '{key}' must be a mapping of axes to lists of values, or a list of such mappings, not "
            f"{'a list with ' * listed}{kind_of(wrong)}. Write it as `{key}: {{k: [2, 4]}}`."
        )
    return entries


def _check_axes(path: str, grids: list[dict[str, Any]], exclude: list[dict[str, Any]]) -> None:
    """Raise UserError for a misspelled axis, and for an axis in `exclude` that no grid has.

    Parsing the flags of a run checks all other names.
    """
    axes = {str(name) for grid in grids for name in grid}
    varied = {AXES.get(name, name) for name in axes} | set(AXES.values())
    unused = {name for entry in exclude for name in map(str, entry) if AXES.get(name, name) not in varied}
    for key, names, cutoff in (("grid", axes - {*AXES, *AXES.values()}, 0.7), ("exclude", unused, 0.5)):
        for name in sorted(names):
            near = get_close_matches(name, AXES, n=1, cutoff=cutoff)
            if near or key == "exclude":
                hint = f" Did you mean '{near[0]}'?" if near else ""
                known = f"Axes: {', '.join(AXES)}, or any flag of a run."
                raise UserError(f"{path}: {key}: no axis '{name}'.{hint} {known}")


def refuse_flags_of_one_run(words: Sequence[str], preview: str = "Leave --dry_run out") -> None:
    """Raise UserError for a flag of run_glue.py that is invalid for many runs. preview: the advice for --dry_run."""
    for word in words:
        name = _dashless(word.partition("=")[0].removeprefix("--"))
        if word.startswith("--") and name in SINGLE_RUN_FLAGS:
            raise UserError(f"--{name}: {SINGLE_RUN_FLAGS[name].format(preview=preview)}.")


def _cells(path: str, grid: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of a grid's values, as axis -> value. Raises UserError for a grid that is too large."""
    if (n := math.prod(len(_values(value)) for value in grid.values())) > MOST_CELLS:
        raise UserError(f"{path}: grid: has {n:,} cells. Allowed: up to {MOST_CELLS:,}. Split it into several studies.")
    for values in itertools.product(*(_values(value) for value in grid.values())):
        yield dict(zip(grid, values, strict=True))


def _values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _matches(cell: dict[str, Any], pattern: dict[str, Any]) -> bool:
    settings = _settings(cell)
    return all(settings.get(AXES.get(name, name)) in _values(value) for name, value in pattern.items())


def _dashless(flag: object) -> str:
    """`drop-k` -> `drop_k`. In a file, a name can be a number."""
    return str(flag).replace("-", "_")


def _settings(cell: dict[str, Any]) -> dict[str, Any]:
    """Flag -> value."""
    return {AXES.get(name, name): value for name, value in cell.items()}


# ---- from cells to jobs ----------------------------------------------------------------------------------------------
class _Planner:
    """Convert the cells of grids to the jobs of a study."""

    def __init__(self, study: Study, store: Store, parse: Parse, settings: dict[str, Any], flags: Sequence[str]):
        self.study, self.store, self.parse, self.settings, self.flags = study, store, parse, settings, flags
        self.names: dict[str, str] = {}
        """Flag -> its name in the study, for messages: an axis of the grid, or a key of the file's settings."""
        self.ids: set[str] = set()
        self.configs: dict[tuple[ModelSpec, HubOptions], PreTrainedConfig | UserError] = {}
        """Model -> its configuration, or the UserError if it cannot be read."""
        self.asked_hub = False
        self.parsed: dict[str, tuple[RunSpec, Options, str | None]] = {}
        """Values of a cell without its seed, and every K of its grid -> its run, and why it is impossible.

        Other seeds are not parsed again."""
        self.seeds: dict[str, int] = {}
        """Seed in the grid -> seed of its runs, which is another one if a flag overrides the axis."""

    def add_grid(self, path: str, grid: dict[str, Any], exclude: list[dict[str, Any]]) -> None:
        """Add the jobs of a grid, and a note for each axis without effect."""
        planned = []
        for cell in _cells(path, grid):
            if not any(_matches(cell, pattern) for pattern in exclude):
                try:
                    job = self._job(cell, _values(grid.get("k", grid.get("drop_k"))))
                except UserError as error:
                    first, last = ({axis: _values(value)[i] for axis, value in grid.items()} for i in (0, -1))
                    everywhere = cell == first != last and self._refusal(last) == str(error)  # no axis is at fault
                    where = "" if everywhere else _where(grid, cell)
                    problems = error.problems or (error,)
                    raise UserError.joined(UserError(f"{p.text}{where}", p.flag, p.value) for p in problems) from error
                if job is not None:
                    self._add(job)
                    planned.append((cell, job.spec.id))
        for axis in grid:
            if idle := idle_axis(axis, planned):
                self._note(idle)

    def keep_needed_models(self) -> None:
        """Save the model of each run that is the start run or the teacher of another run."""
        needed = {run.id for job in self.study.jobs for run in job.spec.prerequisites}

        def with_saved_model(job: Job) -> Job:
            return replace(job, options=replace(job.options, save_model=True)) if job.spec.id in needed else job

        self.study.jobs = [with_saved_model(job) for job in self.study.jobs]

    def _job(self, cell: dict[str, Any], all_k: Sequence[Any]) -> Job | None:
        """The job of a cell. None for an impossible run.

        all_k: the values of K in the cell's grid. With elastic depth, one training serves all of them.
        """
        settings = _settings(cell)
        seed = repr(settings.pop("seed", None))
        others = repr((settings, all_k))
        if others in self.parsed and seed in self.seeds:
            spec, options, reason = self.parsed[others]
            return self._job_of(spec.with_seed(self.seeds[seed]), options, reason)
        try:
            arguments = self.parse(self.settings | _settings(cell), self.flags)
            trained = [k for k in all_k if k is not None]
            shared = arguments.when.drop_when == "elastic" and arguments.when.elastic_k is None and trained
            if shared:
                arguments = self.parse(self.settings | {"elastic_k": trained} | _settings(cell), self.flags)
        except UserError as error:
            raise self._renamed(error) from error
        if arguments.needs_hub and not self.asked_hub:
            self.asked_hub = True
            work_offline_unless_reachable()
        try:
            spec, options = arguments.to_spec()
        except UserError as error:
            name = ", ".join(f"{axis} {value}" for axis, value in cell.items())
            self.study.impossible[name] = str(self._renamed(error))
            return None
        spec = self._possible_depths(spec, options) if shared else spec
        reason = self._check(spec, options)
        self.study.gives_precision &= bool(reason) or arguments.gives_precision
        self.parsed[others], self.seeds[seed] = (spec, options, reason), spec.seed
        return self._job_of(spec, options, reason)

    def _renamed(self, error: UserError) -> UserError:
        """The error with the study's names of the flags at fault."""
        return UserError.joined(
            UserError(problem.text, self.names.get(problem.flag, problem.flag), problem.value)
            for problem in error.problems or (error,)
        )

    def _refusal(self, cell: dict[str, Any]) -> str | None:
        """The error of a cell; None if it is allowed."""
        try:
            self._job(cell, ())
        except UserError as error:
            return str(error)
        return None

    def _job_of(self, spec: RunSpec, options: Options, impossible: str | None) -> Job | None:
        """impossible: the reason why the run is impossible."""
        if impossible is not None:
            self.study.impossible[spec.name] = impossible
            return None
        prior = Path(self.store.root) / PRIOR_FOLDER
        scores = options.score_store or str(prior / SCORE_FOLDER)
        project = {"project": self.study.name} if "report_to" in options.trainer else {}
        options = replace(
            options,
            folder=self.store.folder(spec),
            prior_store=str(prior),
            score_store=scores,
            trainer={**project, **options.trainer},
            resume="auto",
            overwrite=False,
        )
        return Job(spec, options)

    def _check(self, spec: RunSpec, options: Options) -> str | None:
        """The reason why a selection is impossible, else None. Notes models and data that this machine cannot read."""
        config = self._config(spec, options)
        if isinstance(config, UserError):
            self._note(f"{spec.model.name} cannot be read on this machine, so K was not checked. {config}")
        else:
            try:
                check_selection(spec, config)
            except UserError as error:
                return str(self._renamed(error))
        source = spec.data.source
        if source not in ("hub", "demo", "files", "dataset") and not Path(source).is_dir():
            self._note(f"--data_dir {source}: no such folder on this machine. {ELSEWHERE}")
        for split, path in spec.data.files if source == "files" else ():
            if not Path(path).is_file():
                self._note(f"--{split}_file {path}: no such file on this machine. {ELSEWHERE}")
        return None

    def _possible_depths(self, spec: RunSpec, options: Options) -> RunSpec:
        """The run without the values of K in its elastic training that its model is too small for."""
        config = self._config(spec, options)
        if isinstance(config, UserError) or spec.start is None:
            return spec
        ks = tuple(k for k in spec.elastic_k if k < config.num_hidden_layers)
        return replace(spec, start=replace(spec.start, when=WhenSpec(elastic_k=ks))) if ks else spec

    def _config(self, spec: RunSpec, options: Options) -> PreTrainedConfig | UserError:
        key = spec.model, options.hub
        if key not in self.configs:
            try:
                self.configs[key] = Checkpoint.open(*key).config
            except UserError as error:
                self.configs[key] = error
        return self.configs[key]

    def _add(self, job: Job) -> None:
        if job.spec.id not in self.ids:
            self.ids.add(job.spec.id)
            self.study.jobs.append(job)

    def _note(self, text: str) -> None:
        text = one_line(text)
        if text not in self.study.notes:
            self.study.notes.append(text)


def _where(grid: dict[str, Any], cell: dict[str, Any]) -> str:
    """The end of an error message: the cell's value on each axis that has several values."""
    words = ", ".join(f"{axis} {cell[axis]}" for axis in grid if len(_values(grid[axis])) > 1)
    return f" (At {words}.)" if words else ""


def idle_settings(own: Iterable[str], grids: Iterable[dict[str, Any]]) -> list[str]:
    """The names among a study's settings that every grid gives, too. An empty grid does not count."""
    varied = [{_dashless(flag) for flag in _settings(grid)} for grid in grids if grid]
    return [name for name in own if varied and all(_dashless(AXES.get(name, name)) in flags for flags in varied)]


def idle_axis(axis: str, planned: list[tuple[dict[str, Any], str]]) -> str | None:
    """A note if an axis has no effect, because each of its values gives the same runs; else None.

    planned: (cell, id of its run).
    """
    by_others: dict[str, dict[str, str]] = {}
    """The other axes' values -> this axis' value -> id of the run."""
    by_value: dict[str, set[str]] = {}
    """This axis' value -> ids of its runs."""
    for cell, run in planned:
        value, others = repr(cell[axis]), repr([item for item in cell.items() if item[0] != axis])
        by_others.setdefault(others, {})[value] = run
        by_value.setdefault(value, set()).add(run)
    one_run_each = all(len(set(runs.values())) == 1 for runs in by_others.values())
    if len(by_value) < 2 or not one_run_each or any(runs != by_value[value] for runs in by_value.values()):
        return None
    cells, runs = sum(map(len, by_others.values())), len(by_value[value])
    return f"axis '{axis}' has no effect: {cells} cells give {'one run' if runs == 1 else f'{runs} runs'}"
