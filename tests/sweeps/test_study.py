"""Studies: the jobs of a grid, its exclusions, and what is wrong with a file."""

import errno
import json
import math
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
from transformers.integrations import integration_utils

import run_glue
from layerdrop.cli.parsing import parse_settings
from layerdrop.errors import UserError
from layerdrop.finetune import interrupt
from layerdrop.runs.training_arguments import training_arguments
from layerdrop.sweeps import study
from layerdrop.sweeps.study import ELSEWHERE, SINGLE_RUN_FLAGS, idle_axis, read_study

CPU = ("--use_cpu",)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write(yaml) -> the study in it, with its store in the test's folder."""
    monkeypatch.chdir(tmp_path)

    def call(text: str, flags=(), **kwargs):
        Path("s.yaml").write_text(text)
        return read_study("s.yaml", "store", parse_settings, flags=(*CPU, *flags), **kwargs)

    return call


def what(job):
    spec = job.spec
    return spec.data.task, spec.drop.strategy, spec.drop.k, spec.seed


GRID = """
settings: {model_name_or_path: demo}
grid:
  tasks: [demo-rte, demo-sst2]
  strategies: [top, bottom]
  k: [0, 2]
  seeds: [1, 2]
"""


def test_the_full_model_is_one_run_for_all_strategies(write):
    made = write(GRID)
    per_task = [(None, None), ("top", 2), ("bottom", 2)]
    assert sorted(map(what, made.jobs), key=str) == sorted(
        [(task, *how, seed) for task in ("demo-rte", "demo-sst2") for how in per_task for seed in (1, 2)], key=str
    )
    assert len({job.options.folder for job in made.jobs}) == len({job.spec.id for job in made.jobs}) == 12
    assert made.jobs[0].options.folder == f"store/demo_demo-rte_full_k0_seed1_{made.jobs[0].spec.id[:8]}"
    assert not made.notes and not made.impossible and made.name == "s"


@pytest.mark.parametrize(
    "variant", ["", "drop_when: finetuned, freeze_dropped: true", "drop_when: after", "teacher: auto"]
)
def test_seeds_are_parsed_once_and_give_the_run_of_each_seed(write, variant):
    """With the seeds of prerequisite runs."""
    grid = f"settings: {{model_name_or_path: demo, {variant}}}\ngrid: {{tasks: demo-rte, strategies: top, k: [2, 13], "
    together, alone = write(f"{grid}seeds: [1, 2, 3]}}"), [write(f"{grid}seeds: {seed}}}") for seed in (1, 2, 3)]
    assert together.jobs == [job for single in alone for job in single.jobs] and len(together.jobs) == 3
    assert together.impossible == {name: why for single in alone for name, why in single.impossible.items()}
    assert len(together.impossible) == 3


def test_a_flag_overrides_the_seeds_of_the_grid(write):
    grid = "settings: {model_name_or_path: demo}\ngrid: {tasks: [demo-rte, demo-mrpc], seeds: [1, 2]}"
    assert [job.spec.seed for job in write(grid, flags=("--seed", "7")).jobs] == [7, 7]


def test_every_seed_is_checked(write):
    with pytest.raises(UserError, match="seeds"):
        write("settings: {model_name_or_path: demo}\ngrid: {tasks: [demo-rte, demo-mrpc], seeds: [1, 2, -1]}")


def test_settings_take_one_value_of_an_axis(write):
    """Like its flag; the grid and the command line override it."""
    axes = "{models: demo, tasks: [demo-rte], strategies: top, k: 6, seeds: 1}"
    (job,) = write(f"settings: {axes}\ngrid: {{learning_rate: 1e-4}}").jobs
    (same,) = write(f"grid: {axes.replace('}', ', learning_rate: 1e-4}')}").jobs
    assert job == same and what(job) == ("demo-rte", "top", 6, 1)
    assert [job.spec.drop.k for job in write(f"settings: {axes}\ngrid: {{k: [2, 4]}}").jobs] == [2, 4]
    assert [job.spec.seed for job in write(f"settings: {axes}\ngrid: {{k: 2}}", axes={"seeds": [7, 8]}).jobs] == [7, 8]


def test_an_axis_in_settings_is_an_axis_of_each_grid(write):
    """Elastic trainings and `exclude` read the axes of a grid."""
    rest = "models: demo, strategies: top, drop_when: elastic"
    (job,) = write(f"settings: {{{rest}, k: 6}}\ngrid: {{tasks: demo-rte}}").jobs
    (same,) = write(f"settings: {{{rest}}}\ngrid: {{tasks: demo-rte, k: 6}}").jobs
    assert job == same and job.spec.elastic_k == (6,)
    exclude = "exclude: {k: 6, tasks: demo-rte}"
    study = write(f"settings: {{{rest}, k: 6}}\ngrid: [{{tasks: demo-rte}}, {{tasks: demo-sst2}}]\n{exclude}")
    assert [job.spec.data.task for job in study.jobs] == ["demo-sst2"]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("learning_rate: [1e-4, -1]", "learning_rate -1.0: must be"),
        ("drop_k: [2, -2]", "drop_k -2: must be"),
        ("k: [2, -2]", "k -2: must be"),
        ("learning_rate: 1e-4, seeds: -1", "seeds -1: must be"),
        ("optim: [adamw_torch], optim_args: abc", "optim adamw_torch --optim_args abc: cannot be used ("),
        ("tasks: demo-rte", "s.yaml: settings: k -3: must be"),
    ],
)
def test_an_error_names_the_axis_of_the_grid_before_the_setting(write, grid, said):
    settings = "models: demo, learning_rate: 1e-4, strategies: top, k: -3, seeds: 1, tasks: demo-rte"
    settings = settings if "tasks" in grid else settings.replace("-3", "3")
    with pytest.raises(UserError) as error:
        write(f"settings: {{{settings}}}\ngrid: {{{grid}}}")
    assert str(error.value).startswith(said), error.value


def test_an_empty_grid_beside_others_is_no_run(write):
    rest = "settings: {models: demo, strategies: top, tasks: demo-rte}"
    assert [job.spec.drop.k for job in write(f"{rest}\ngrid: [{{}}, {{k: 2}}]").jobs] == [2]


def test_an_impossible_run_names_the_setting(write):
    study = write("settings: {models: demo, drop_layers: '3,40'}\ngrid: {tasks: demo-rte, drop_layers: [null, '3,40']}")
    assert [why.partition(":")[0] for why in study.impossible.values()] == ["drop_layers"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("k: [2, 4]", "s.yaml: settings: k: takes one value. Put an axis under 'grid', as `grid: {k: [2, 4]}`."),
        ("seeds: []", "s.yaml: settings: seeds: takes one value. Put an axis under 'grid', as `grid: {seeds: []}`."),
        ("k: 2, drop_k: 4", "s.yaml: settings: 'k' and 'drop_k' are the same. Leave one of them out."),
        ("k: two", "s.yaml: settings: k: not a whole number: 'two'. See layerdrop run --help."),
        ("kk: 2", "s.yaml: settings: kk: no such flag."),
    ],
)
def test_an_axis_in_settings_that_is_refused(write, settings, said):
    with pytest.raises(UserError) as error:
        write(f"settings: {{models: demo, {settings}}}\ngrid: {{tasks: demo-rte, strategies: top}}")
    assert str(error.value).startswith(said), error.value


def test_an_axis_in_a_recipe_is_no_flag(write, tmp_path):
    (tmp_path / "r.yaml").write_text("k: 2")
    with pytest.raises(UserError, match=r"--k: no such flag. Did you mean --drop_k\?"):
        write("recipe: r.yaml\ngrid: {models: demo, tasks: demo-rte, strategies: top}")


def test_the_order_is_the_files(write):
    order = [("top", 2, 1), ("top", 2, 2), ("bottom", 2, 1), ("bottom", 2, 2)]
    full = [(None, None, 1), (None, None, 2)]
    rte = [*full, *order]
    assert list(map(what, write(GRID).jobs)) == [(task, *rest) for task in ("demo-rte", "demo-sst2") for rest in rte]


def test_options_of_the_runs(write):
    options = write(GRID).jobs[0].options
    assert (options.resume, options.overwrite, options.save_model, options.use_cpu) == ("auto", False, False, True)
    assert options.trainer["disable_tqdm"] is True
    assert options.rolling_checkpoints and options.trainer["save_strategy"] == "epoch"  # a killed run continues
    asked = write(
        GRID.replace("{model_name_or_path: demo}", "{model_name_or_path: demo, save_model: yes}"), ["--do_predict"]
    )
    assert (
        asked.jobs[0].options.save_model is False and asked.jobs[0].options.predict
    )  # --do_predict alone: no training
    for asked in (write(GRID, ["--save_model"]), write(GRID.replace("demo}", "demo, save_model: yes}", 1))):
        assert asked.jobs[0].options.save_model


@pytest.mark.parametrize("when", ["", "drop_when: finetuned, "])
def test_a_run_of_a_study_continues_from_its_last_epoch(write, bert, glue, monkeypatch, when):
    """After a failure in the third of four epochs; with `finetuned`, of the prerequisite run."""
    settings = f"settings: {{model_name_or_path: {bert}, data_dir: {glue}, num_train_epochs: 4, {when}}}"
    (job,) = write(settings + "\ngrid: {tasks: rte, strategies: top, k: 2}").jobs
    monkeypatch.setattr(interrupt, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(interrupt, "CHECKPOINT_SHARE", math.inf)
    usual = interrupt.Interrupt.on_step_end

    def fail(self, args, state, control, **kwargs):
        usual(self, args, state, control, **kwargs)
        if state.epoch > 2.1:
            raise OSError(errno.EIO, "the node is lost")

    with monkeypatch.context() as patch:
        patch.setattr(interrupt.Interrupt, "on_step_end", fail)
        with pytest.raises(UserError, match="the node is lost") if when else nullcontext():
            assert run_glue.run(job.spec, job.options).status == "failed"
    done = run_glue.run(job.spec, job.options)
    assert done.status == "success" and not list(Path("store").rglob("checkpoint-*"))
    assert done.prerequisites["resumed"] == 1 if when else done.resumed_at_step > 0


def test_a_study_without_a_run_is_refused(write):
    model = "settings: {model_name_or_path: demo}\n"
    with pytest.raises(UserError, match="has no run"):
        write(model + "grid: {}")
    with pytest.raises(UserError, match="has no run"):
        write(model + "grid: {tasks: demo-rte, k: 0}\nexclude: [{k: 0}]")
    with pytest.raises(UserError, match="none of its 2 runs is possible.*: k 3: symmetric"):
        write(model + "grid: {tasks: demo-rte, strategies: symmetric, k: 3, seeds: [1, 2]}")
    assert len(write(model + "grid: {}", axes={"tasks": ["demo-rte"]}).jobs) == 1


def test_an_impossible_study_names_its_file_once(write):
    with pytest.raises(UserError, match="none of its 2 runs is possible") as refused:
        write(
            "settings: {model_name_or_path: demo, k: 3}\ngrid: {tasks: demo-rte, strategies: symmetric, seeds: [1, 2]}"
        )
    assert str(refused.value).count(".yaml") == 1 and "settings: k 3: symmetric" in str(refused.value)


@pytest.mark.parametrize(
    ("grids", "idle"),
    [
        ("[{tasks: demo-rte, k: 2}, {tasks: demo-sst2, drop_k: 2, max-steps: 3}]", ["k"]),
        ("[{tasks: demo-rte, k: 2, max_steps: 3}, {tasks: demo-sst2, drop_k: 2, max-steps: 3}]", ["k", "max_steps"]),
        ("[{tasks: demo-rte, k: 2}, {}]", ["k"]),
        ("[{tasks: demo-rte, k: 2}, {tasks: demo-sst2}]", []),
    ],
)
def test_a_setting_that_every_grid_replaces_is_noted(write, grids, idle):
    text = f"settings: {{model_name_or_path: demo, strategies: top, k: 6, max_steps: 9}}\ngrid: {grids}"
    said = [f"settings: '{name}' has no effect, because every grid gives it" for name in idle]
    assert [note for note in write(text).notes if "settings" in note] == said
    flags = write(text, ["--learning_rate", "1e-5"], axes={"strategies": ["bottom"]})  # flags replace settings anyway
    assert [note for note in flags.notes if "settings" in note] == said


def test_errors_name_the_axis(write):
    with pytest.raises(UserError, match="^tasks: unknown value 'rto'"):
        write("grid: {tasks: rto, k: 0}")
    with pytest.raises(UserError, match="^s.yaml: settings: task_name: unknown value 'rto'"):
        write("settings: {task_name: rto}\ngrid: {k: 0}")
    both = r"only with --drop_when finetuned and --drop_strategy.*\(At drop_when after.\)"
    with pytest.raises(UserError, match=both):
        write("grid: {strategies: top, k: 2, freeze_dropped: true, drop_when: [finetuned, after]}")


ELASTIC = """
settings: {model_name_or_path: demo}
grid:
  - {tasks: demo-rte, strategies: top, k: [0, 2, 4, 6, 8], seeds: [1, 2], drop_when: [pretrained, elastic]}
"""


def test_elastic_depth_is_one_training_for_every_k(write):
    made = write(ELASTIC)
    elastic = [job.spec for job in made.jobs if job.spec.elastic_k]
    assert len(made.jobs) == 20 and sorted(spec.drop.k or 0 for spec in elastic) == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8]
    assert {spec.elastic_k for spec in elastic} == {(2, 4, 6, 8)}
    assert len({spec.start.id for spec in elastic}) == 2 and not made.notes  # one for each seed
    given = write(ELASTIC.replace("[pretrained, elastic]", "elastic, elastic_k: [[2, 4, 6, 8, 9]]"))
    assert {job.spec.elastic_k for job in given.jobs} == {(2, 4, 6, 8, 9)}
    grids = [{"tasks": "demo-rte", "strategies": "top", "drop_when": "elastic", "k": k} for k in ([2, 4], [2, 6])]
    two = write(json.dumps({"settings": {"model_name_or_path": "demo"}, "grid": grids})).jobs
    assert [(job.spec.drop.k, job.spec.elastic_k) for job in two] == [
        (2, (2, 4)),
        (4, (2, 4)),
        (2, (2, 6)),
        (6, (2, 6)),
    ]
    fixed = {"model_name_or_path": "demo", "drop_strategy": "top", "drop_when": "elastic", "drop_k": 3}
    (job,) = write(json.dumps({"settings": fixed, "grid": {"tasks": "demo-rte"}})).jobs
    assert job.spec.elastic_k == (1, 2, 3)


def test_elastic_depths_that_a_smaller_model_lacks_do_not_prevent_its_other_depths(write, bert):
    axes = {"models": ["demo", bert], "tasks": "demo-rte", "k": [0, 2, 6, 8], "seeds": [1, 2], "drop_when": "elastic"}
    made = write(json.dumps({"grid": axes}))
    ks = {(job.spec.model.name == bert, job.spec.drop.k or 0, job.spec.elastic_k) for job in made.jobs}
    assert ks == {(False, k, (2, 6, 8)) for k in (0, 2, 6, 8)} | {(True, k, (2,)) for k in (0, 2)}
    assert len({job.spec.start.id for job in made.jobs}) == 4
    assert len(made.impossible) == 4 and all("6 layers" in reason for reason in made.impossible.values())


def test_exclusions(write):
    made = write(GRID + "exclude: [{strategies: bottom, seeds: [1, 3]}, {tasks: demo-rte, k: 2, strategies: top}]")
    kept = set(map(what, made.jobs))
    assert ("demo-sst2", "bottom", 2, 1) not in kept and ("demo-sst2", "bottom", 2, 2) in kept
    assert ("demo-rte", "top", 2, 2) not in kept and ("demo-sst2", "top", 2, 2) in kept
    assert len(kept) == 12 - 2 - 2
    assert not any(job.spec.drop.k is None for job in write(GRID + "exclude: {k: 0}").jobs)


def test_several_grids_any_flag_and_scalars(write):
    made = write(
        "settings: {model_name_or_path: demo, task_name: demo-rte}\n"
        "grid:\n- {learning_rate: [1e-4, 3e-4], k: 0}\n- {from_scratch: yes, k: 0, seeds: [42, 42]}\n"
    )
    assert [(job.spec.train.learning_rate, job.spec.model.from_scratch) for job in made.jobs] == [
        (1e-4, False),
        (3e-4, False),
        (2e-5, True),
    ]


def test_a_grid_may_change_another_one(write):
    made = write("grid: [&a {models: demo, tasks: demo-rte, strategies: top, k: 2, seeds: [1, 2]}, {<<: *a, k: 3}]")
    assert [what(job)[2:] for job in made.jobs] == [(2, 1), (2, 2), (3, 1), (3, 2)]
    from_within = "exclude: [&a {k: 1, seeds: 5}, &b {<<: *a, k: 3}]\n"
    from_within += "grid: {<<: *b, models: demo, strategies: top, k: 2}"
    assert [what(job)[2:] for job in write(from_within).jobs] == [(2, 5)]


def test_axes_flags_and_recipe_of_the_command_line(write):
    Path("r.yaml").write_text("learning_rate: 5e-5\n")
    made = write(GRID, ["--num_train_epochs", "1"], axes={"tasks": ["demo-cola"], "k": [3]}, recipe="r.yaml")
    assert {job.spec.data.task for job in made.jobs} == {"demo-cola"} and {job.spec.drop.k for job in made.jobs} == {3}
    assert all(job.spec.train.learning_rate == 5e-5 for job in made.jobs)
    assert all(job.spec.train.num_train_epochs == 1 for job in made.jobs)


def test_recipe_lies_beside_the_study(write, tmp_path):
    (tmp_path / "r.yaml").write_text("learning_rate: 5e-5\nseed: 9\n")
    made = write("recipe: r.yaml\nsettings: {model_name_or_path: demo, seed: 3}\ngrid: {tasks: demo-rte}")
    assert [(job.spec.train.learning_rate, job.spec.seed) for job in made.jobs] == [(5e-5, 3)]


def test_what_cannot_be_is_named_and_not_run(write):
    made = write("settings: {model_name_or_path: demo, task_name: demo-rte}\ngrid: {strategies: symmetric, k: [4, 5]}")
    assert [job.spec.drop.k for job in made.jobs] == [4]
    ((name, why),) = made.impossible.items()
    assert name == "demo_demo-rte_symmetric_k5_seed42" and "4 or 6" in why


def test_what_cannot_be_read_is_said(write):
    made = write("settings: {task_name: rte, drop_strategy: top}\ngrid: {models: [./no-such], k: [9], seeds: [1, 2]}")
    (text,) = made.notes
    assert len(made.jobs) == 2 and "no-such" in text and "K was not checked" in text
    made = write("settings: {model_name_or_path: demo, task_name: rte, data_dir: nowhere}\ngrid: {seeds: [1, 2]}")
    assert made.notes == [f"--data_dir nowhere: no such folder on this machine. {ELSEWHERE}"]


def test_own_files_that_are_not_here_are_said(write):
    Path("train.csv").write_text("text,label\na,0\n")
    made = write(
        "settings: {model_name_or_path: demo, train_file: train.csv, validation_file: no.csv}\ngrid: {seeds: [1, 2]}"
    )
    assert (
        made.notes == [f"--validation_file no.csv: no such file on this machine. {ELSEWHERE}"] and len(made.jobs) == 2
    )


def test_an_order_that_nobody_knows_is_impossible_and_no_end(write):
    made = write("settings: {model_name_or_path: demo}\ngrid: {tasks: demo-rte, strategies: [top, greedy], k: [2]}")
    assert [job.spec.drop.strategy for job in made.jobs] == ["top"]
    assert list(made.impossible) == ["tasks demo-rte, strategies greedy, k 2"]


# ---- axes without effect ---------------------------------------------------------------------------------------------
BASE = "settings: {model_name_or_path: demo, task_name: demo-rte}\n"


@pytest.mark.parametrize(
    ("axis", "runs"),
    [
        ("tokenizer_name: [demo, ./other]", 2),
        ("max_seq_length: [32, 64]", 2),
        ("auto_find_batch_size: [false, true]", 2),
        ("adam_epsilon: [1e-8, 1e-6]", 2),
        ("freeze_layers: ['0', '0,1']", 2),
        ("logging_steps: [10, 20, 30]", 1),
        ("save_model: [false, true]", 1),
        ("seeds: [3, 3]", 1),
    ],
)
def test_any_flag_is_an_axis_or_is_named_as_idle(write, axis, runs):
    made = write(BASE + f"grid: {{{axis}}}")
    name, n = axis.split(":")[0], axis.count(",") + 1
    idle = [f"axis '{name}' has no effect: {n} cells give one run"] if runs == 1 and name != "seeds" else []
    assert len(made.jobs) == runs and made.notes == idle


def test_idle_axes_by_hand():
    def planned(*rows):
        return [({"a": a, "b": b}, run) for a, b, run in rows]

    idle = planned((1, 1, "x"), (2, 1, "x"), (1, 2, "y"), (2, 2, "y"))
    assert idle_axis("a", idle) == "axis 'a' has no effect: 4 cells give 2 runs" and idle_axis("b", idle) is None
    assert idle_axis("a", planned((1, 1, "x"), (2, 1, "x"))) == "axis 'a' has no effect: 2 cells give one run"
    assert idle_axis("a", planned((1, 1, "x"), (1, 2, "y"))) is None  # one value
    assert idle_axis("a", planned((1, 1, "x"), (2, 1, "y"), (1, 2, "y"), (2, 2, "x"))) is None
    # K = 0 is one run for two strategies, of which only one can drop K = 5
    assert idle_axis("a", planned((1, 0, "full"), (2, 0, "full"), (1, 5, "top"))) is None
    assert idle_axis("a", planned((1, 0, "full"), (2, 0, "full"), (1, 2, "p"), (2, 2, "q"))) is None
    # one value of each run: no published figures
    assert idle_axis("a", planned((1, 1, "x"), (2, 2, "y"))) is None


def test_a_study_reports_to_one_project_with_a_run_for_each_run(write, monkeypatch):
    """A tracker changes no id. --project overrides the study's name."""
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    plain = write(GRID).jobs
    for flags, project in ([], "s"), (["--project", "mine"], "mine"):
        jobs = write(GRID, ["--report_to", "tensorboard", *flags]).jobs
        assert [job.spec.id for job in jobs] == [job.spec.id for job in plain]
        args = [training_arguments(job.spec, job.options) for job in jobs]
        assert {a.project for a in args} == {project} and all(a.report_to == ["tensorboard"] for a in args)
        assert [a.run_name for a in args] == [Path(job.options.folder).name for job in jobs]
    assert all("project" not in job.options.trainer for job in plain)


# ---- what is refused -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SINGLE_RUN_FLAGS)
def test_flags_of_a_single_run_are_refused(write, name):
    for call in (
        lambda: write(BASE + "grid: {k: 0}", [f"--{name}"]),
        lambda: write(BASE + "grid: {k: 0}", [f"--{name.replace('_', '-')}=x"]),
        lambda: write(BASE.replace("settings: {", f"settings: {{{name}: x, ") + "grid: {k: 0}"),
        lambda: write(BASE + f"grid: {{k: 0, {name}: [x, y]}}"),
    ):
        with pytest.raises(UserError, match=rf"^--{name}: .*\.$") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_configuration_of_one_run_points_to_its_command(write):
    with pytest.raises(UserError, match=r"s.yaml: not a study, because it has no .grid.*layerdrop run s.yaml"):
        write("model_name_or_path: demo\nlearning_rate: 1e-4\n")


def test_whether_the_precision_is_given(write):
    assert not write(BASE + "grid: {k: 0}").gives_precision
    assert write(BASE + "grid: {precision: [fp32, bf16]}").gives_precision
    assert write(BASE + "grid: {k: 0}", ["--precision=fp32"]).gives_precision
    assert not write(BASE + "grid: [{k: 0, seeds: 3}, {precision: fp32}]").gives_precision
    assert not write(BASE + "grid: [{precision: fp32}, {k: 0, seeds: 3}]").gives_precision


def test_the_hub_is_asked_once_and_only_if_needed(write, monkeypatch):
    asked = []
    monkeypatch.setattr(study, "work_offline_unless_reachable", lambda: asked.append(1))
    write(BASE + "grid: {seeds: [1, 2]}")
    assert not asked
    write("settings: {task_name: rte}\ngrid: {models: [a/b, c/d], seeds: [1, 2]}")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grids: {}", "s.yaml: unknown key 'grids'. Did you mean 'grid'?"),
        ("grid: {k: 0}\nexlude: {}", "s.yaml: unknown key 'exlude'. Did you mean 'exclude'?"),
        (
            "grid: {k: 0}\nsettings: {learning_rat: 1}",
            "s.yaml: settings: learning_rat: no such flag. Did you mean --learning_rate",
        ),
        ("grid: {task: [rte]}", "s.yaml: grid: no axis 'task'. Did you mean 'tasks'?"),
        ("grid: {k: 0}\nexclude: [{strategy: top}]", "s.yaml: exclude: no axis 'strategy'. Did you mean 'strategies'?"),
        ("grid: {learning_rat: 1}", "learning_rat: no such flag. Did you mean --learning_rate?"),
        ("grid: {tasks: [rto]}", "unknown value 'rto'. Did you mean 'rte'?"),
        ("grid: {k: [2]}", "k: needs a strategy. Choose --drop_strategy: top"),
        ("grid: {strategies: [contribution]}", "needs the number of layers. Add --drop_k N or --drop_threshold X."),
        ("grid: 3", "'grid' must be a mapping of axes to lists of values, or a list of such mappings, not a number"),
        ("grid: {1: 2}", "1: no such flag"),
        ("recipe: {learning_rate: 1}\ngrid: {k: 0}", "'recipe' must be the path of a file of flags, not a mapping"),
        ("settings: [a]\ngrid: {k: 0}", "'settings' must be a mapping of flags to values, not a list"),
        ("1: 2", "s.yaml: 1 is not the name of a flag. Write `flag: value` lines"),
        ("grid: {k: []}", "has no run"),
        ("recipe: none.yaml\ngrid: {k: 0}", "none.yaml: cannot read"),
        ("grid: {k: 0}\ngrid: {k: 1}", "'grid' occurs twice"),
        ("grid: [&a {k: 0}, {<<: *a, k: 1, k: 2}]", "'k' occurs twice"),
        ("grid: [&a {k: 0}, {<<: *a, <<: *a}]", "'<<' occurs twice"),
        ("- a", "s.yaml: must consist of `flag: value` lines, but is a list. Write"),
    ],
)
def test_wrong_files(write, text, said):
    with pytest.raises(UserError, match=re.escape(said)):
        write(text)


def test_every_problem_names_its_setting_or_axis(write):
    """Flags in an advice, and flags of the command line, keep their names."""
    text = "settings: {learning_rate: -1, max_steps: -2, seed: 3}\ngrid: {k: -1, strategies: top, tasks: demo-rte}"
    with pytest.raises(UserError) as error:
        write(text, flags=("--max-steps=-3",))
    assert str(error.value).splitlines() == [
        "k -1: must be from 0 to 1000. Give a number of layers to drop.",
        "--max_steps -3: must be above 0. To train --num_train_epochs, leave --max_steps out.",
        "s.yaml: settings: learning_rate -1.0: must be 0 or more.",
    ]


def test_a_search_is_no_study(tmp_path):
    path = tmp_path / "search.yaml"
    path.write_text("model_name_or_path: demo\nmax_k: 2\n")
    with pytest.raises(UserError, match=f"^{path}: is a search. Execute it with: layerdrop search {path}$"):
        read_study(str(path), str(tmp_path), parse_settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 10_000, "nested too deep"),
        ("grid: " + "[" * 5000 + "]" * 5000, "nested too deep"),
        (
            "grid: {" + ", ".join(f"{axis}: {list(range(100))}" for axis in ("k", "seeds", "max_steps")) + "}",
            "x.yaml: grid: has 1,000,000 cells",
        ),
        ("!!python/object/apply:os.mkdir ['executed']", "not valid YAML"),
    ],
)
def test_hostile_studies(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_study(str(tmp_path / "x.yaml"), str(tmp_path), parse_settings)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("available", [True, False])
def test_a_study_with_a_tracker_that_is_not_installed(write, monkeypatch, available):
    monkeypatch.setattr("layerdrop.finetune.tracking.find_spec", lambda name: None)
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: available)
    with nullcontext() if available else pytest.raises(UserError) as caught:
        write(GRID, ["--report_to", "tensorboard"])
    needs = "--report_to tensorboard: needs a package that is not installed. Run: pip install tensorboard"
    assert available or str(caught.value).startswith(needs)


@pytest.mark.parametrize(
    ("grid", "flags", "said"),
    [
        ("settings: {learning_rate: -1}\ngrid: {k: [0, 2]}", [], "s.yaml: settings: learning_rate -1.0: .*[^)]$"),
        ("settings: {learning_rate: 1}\ngrid: {k: [0, 2]}", ["--learning_rate", "-1"], "--learning_rate -1.0: .*[^)]$"),
        (
            "grid: {learning_rate: [1, -1], k: 2, seeds: [1, 2]}",
            [],
            r"^learning_rate -1.0: .* \(At learning_rate -1, seeds 1",
        ),
    ],
)
def test_an_error_of_every_cell_names_the_setting_and_no_cell(write, grid, flags, said):
    """An axis at fault is named, also if its last value is the wrong one."""
    text = grid.replace("settings: {", "settings: {model_name_or_path: demo, ")
    with pytest.raises(UserError, match=f"^{said}"):
        write(text.replace("grid: {", "grid: {tasks: demo-rte, strategies: top, "), flags)
