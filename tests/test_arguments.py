import dataclasses
import json
import sys
from argparse import Namespace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainingArguments

from layerdrop import arguments
from layerdrop.arguments import NO_EFFECT, parse, translate
from layerdrop.arguments.checks import ranges
from layerdrop.arguments.parsing import _choose_precision
from layerdrop.arguments.to_spec import _plain
from layerdrop.errors import UserError
from layerdrop.spec import DataSpec, DropSpec, ModelSpec, Options, RunSpec, TrainSpec
from layerdrop.tasks import TASKS
from layerdrop.words import FLAG_OF, WITHOUT_FLAG, flag_of

CPU = ["--use_cpu", "--report_to", "none"]


def asked(words: str) -> tuple[RunSpec, Options]:
    return parse([*words.split(), *CPU]).to_spec()


def spec(words: str) -> RunSpec:
    return asked(words)[0]


def options(words: str) -> Options:
    return asked(words)[1]


def refusal(argv: list[str]) -> str:
    with pytest.raises(UserError) as error:
        parse([*argv, *CPU])
    return str(error.value)


def test_defaults_are_the_papers_recipe():
    a = parse(["--drop_strategy", "top", "--drop_k", "6", *CPU])
    assert (a.model.model_name_or_path, a.data.task.name) == ("bert-base-uncased", "mrpc")
    t = a.train
    assert (t.do_train, t.do_eval, t.do_predict) == (True, True, False)
    assert (t.num_train_epochs, t.per_device_train_batch_size, t.learning_rate, t.weight_decay) == (3.0, 32, 2e-5, 0.0)
    assert (a.data.max_seq_length, t.lr_scheduler_type, t.warmup_steps) == (128, "linear", 0)
    assert a.to_spec()[1].folder == "runs/bert-base-uncased_mrpc_top_k6_seed42"


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ("", "bert-base-uncased_mrpc_full_k0_seed42"),
        (
            "--task_name RTE --seed 7 --model_name_or_path /x/roberta-base/ --drop_layers 9,10",
            "roberta-base_rte_list_9-10_seed7",
        ),
        ("--drop_strategy contribution --drop_threshold 0.95", "bert-base-uncased_mrpc_contribution_t0.95_seed42"),
        ("--do_eval", "bert-base-uncased_mrpc_full_k0_seed42_eval"),
        ("--train_file a/reviews.csv --validation_file b.csv", "bert-base-uncased_reviews_full_k0_seed42"),
    ],
)
def test_output_folder(argv, name):
    assert options(argv).folder == f"runs/{name}" and options(argv + " --output_dir x").folder == "x"


@pytest.mark.parametrize("argv", ["--do_train", "--do_eval", "--do_predict", "--do_eval --do_predict"])
def test_only_what_is_asked_for(argv):
    t = parse([*argv.split(), *CPU]).train
    assert {f"--{name}" for name in ("do_train", "do_eval", "do_predict") if getattr(t, name)} == set(argv.split())


def test_every_flag_of_the_library_goes_through():
    parser = arguments.Parser()
    known = {action.dest for action in parser._actions}
    assert {f.name for f in dataclasses.fields(TrainingArguments) if f.init} <= known
    a = parse(
        [
            "--report_to",
            "none",
            "--push_to_hub",
            "--hub_model_id",
            "me/x",
            "--optim",
            "adafactor",
            "--lr_scheduler_type",
            "cosine",
            "--lr_scheduler_kwargs",
            '{"num_cycles":2}',
            "--logging_steps",
            "5",
            "--use_cpu",
        ]
    )
    assert (a.train.push_to_hub, a.train.hub_model_id, a.train.optim) == (True, "me/x", "adafactor")
    assert a.train.lr_scheduler_kwargs == {"num_cycles": 2}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--drop_strategy tpo --drop_k 2", "--drop_strategy: unknown value 'tpo'. Did you mean 'top'"),
        ("--drop_k 2", "--drop_k needs a strategy. Choose --drop_strategy: top, bottom"),
        ("--drop_strategy top", r"--drop_strategy top: how many layers\? Add --drop_k N\."),
        ("--drop_strategy contribution", "Add --drop_k N or --drop_threshold X"),
        ("--drop_strategy contribution --drop_k 1 --drop_threshold 0.9", "both say how many"),
        (
            "--drop_strategy contribution --drop_threshold 95",
            "--drop_threshold 95.0: a cosine similarity. Choose -1 to 1",
        ),
        ("--drop_strategy top --drop_threshold 0.9", "only for --drop_strategy contribution, not top"),
        ("--drop_strategy top --drop_k -1", "--drop_k -1"),
        ("--drop_strategy top --drop_k two", "--drop_k.*not a whole number: 'two'"),
        ("--drop_strategy list", "needs the ids. Add --drop_layers"),
        ("--drop_layers ,", "--drop_layers: names no layer. Write ids as 9,10,11"),
        ("--drop_layers=", "--drop_layers: names no layer"),
        ("--drop_layers 9,x", "--drop_layers '9,x': not a list of layer ids"),
        ("--drop_layers 9 --drop_strategy top --drop_k 1", "both choose layers"),
        ("--drop_layers 9 --drop_k 2", "--drop_k 2: --drop_layers names 1 layers"),
        ("--drop_strategy top --drop_k 1 --score_on x", "--score_on: top has no scores"),
        ("--drop_strategy top --drop_k 1 --drop_order_file x", "--drop_order_file: only for greedy and optimal"),
        ("--freeze_layers=-1,3,-2", "^--freeze_layers -2, -1: no layer id. Ids count from 0"),
        ("--task_name mprc", "--task_name: unknown value 'mprc'. Did you mean 'mrpc'"),
        ("--train_file a.csv", "--validation_file is missing: --do_eval or --score_split validation needs it"),
        ("--train_file a.csv --do_train --drop_strategy contribution --drop_k 1", "--validation_file is missing"),
        ("--train_file a.csv --validation_file b.csv --data_dir c", "both say where the data is"),
        ("--max_train_samples 0", "--max_train_samples 0: must be 1 or more"),
        ("--num_train_epochs 0", "--num_train_epochs 0.0: must be above 0"),
        ("--per_device_train_batch_size 0", "--per_device_train_batch_size 0: must be 1 or more"),
        ("--learning_rate -1", "--learning_rate -1.0: must be a number that is not negative"),
        ("--do_train False --do_eval False", "nothing to do"),
        ("--resume_from_checkpoint --overwrite_output_dir", "contradict each other"),
        ("--model_name_or_path . --output_dir ../{cwd}", "is the checkpoint's own folder"),
        ("--precision fp32 --bf16", "--precision fp32 and --bf16 contradict each other"),
        ("--precision fp16", "--precision fp16: needs a GPU"),
        ("--fp16", "^--fp16: needs a GPU. Allowed on this machine: --precision auto, fp32 or bf16"),
        ("--precision bf16 --bf16 False", "--precision bf16 and --bf16 False contradict each other"),
        ("--drop_layers 10 11", "^--drop_layers 10 11: ids with spaces. Write them as 10,11.$"),
        ("--remove_layers 10 11 --seed 1", "^--remove_layers 10 11: ids with spaces. Write them as 10,11.$"),
        ("--freeze_layers=0, 1,2", "^--freeze_layers 0, 1,2: ids with spaces. Write them as 0,1,2.$"),
        ("--drop_layers 9,10 --freeze_layers 1,9", "^--freeze_layers 9: --drop_layers drops this"),
        ("--drop_layers 1,-1,2", "^--drop_layers -1: no layer id. Ids count from 0"),
        ("--load_best_model_at_end --do_train", "^--load_best_model_at_end: needs evaluations .* Add --do_eval"),
        ("--task_name x --metric_for_best_model f1", "^--task_name: unknown value 'x'"),
        ("--drop_layers x --freeze_layers 1", "^--drop_layers 'x': not a list of layer ids"),
        ("--drop_strategy contribution --drop_k 1 --max_score_samples 0", "--max_score_samples 0: must be 1 or more"),
        ("--json", "--json goes with --dry_run"),
        ("--drop_stratgy top", "--drop_stratgy: no such flag. Did you mean --drop_strategy?"),
        ("--dropk 6", "--dropk: no such flag"),
        ("top", "'top' belongs to no flag"),
        ("nowhere.yaml", "nowhere.yaml: cannot read the configuration"),
        ("--eval_strategy sometimes", "sometimes"),
    ],
)
def test_what_is_wrong_is_said(argv, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = argv.replace("{cwd}", tmp_path.name)
    with pytest.raises(UserError, match=said) as error:
        parse([*argv.split(), *CPU])
    assert "Traceback" not in str(error.value) and len(str(error.value).splitlines()) == 1


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(UserError) as error:
        parse(["--drop_strategy", "top", "--task_name", "x", "--learning_rate", "-1", "--max_seq_length", "0"] + CPU)
    assert [line.split()[0].rstrip(":") for line in str(error.value).splitlines()] == [
        "--drop_strategy",
        "--task_name",
        "--max_seq_length",
        "--learning_rate",
    ]


# ---- configuration files
def test_yaml_and_json(tmp_path):
    settings = {
        "drop_strategy": "list",
        "drop_layers": [9, 10],
        "learning_rate": "3e-5",
        "do_train": True,
        "cache_dir": None,
    }
    (tmp_path / "x.yaml").write_text(
        "drop_strategy: list\ndrop_layers: [9, 10]\nlearning_rate: 3e-5\ndo_train: true\ncache_dir:\n"
    )
    (tmp_path / "x.json").write_text(json.dumps(settings))
    for name in ("x.yaml", "x.json"):
        a = parse([str(tmp_path / name), "--seed", "7", "--learning_rate", "1e-5", *CPU])
        assert (a.drop_layers, a.train.seed, a.train.learning_rate) == ((9, 10), 7, 1e-5)
        assert a.train.do_train and not a.train.do_eval


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("drop_stratgy: top", "--drop_stratgy: no such flag. Did you mean --drop_strategy"),
        ("a: [", "not valid YAML"),
        ("- a", "`flag: value`"),
    ],
)
def test_bad_configuration(tmp_path, text, said):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        parse([str(tmp_path / "x.yaml")])


# ---- older flags
def test_the_forks_command():
    """Sajjad et al.'s own call, word for word but for the paths."""
    a = parse(
        [
            "--model_type",
            "bert",
            "--model_name_or_path",
            "bert-base-uncased",
            "--task_name",
            "RTE",
            "--do_train",
            "--do_eval",
            "--do_lower_case",
            "--data_dir",
            "x",
            "--max_seq_length",
            "128",
            "--per_gpu_eval_batch_size=8",
            "--per_gpu_train_batch_size",
            "16",
            "--learning_rate",
            "2e-5",
            "--num_train_epochs",
            "3.0",
            "--output_dir",
            "y",
            "--remove_layers",
            "10,11",
            "--freeze_layers",
            "0,1",
            "--no_cuda",
            "--overwrite_output_dir",
        ]
    )
    assert (a.drop.drop_strategy, a.drop_layers, a.freeze_layers) == ("list", (10, 11), (0, 1))
    assert (a.train.per_device_eval_batch_size, a.train.per_device_train_batch_size, a.train.use_cpu) == (8, 16, True)
    assert a.train.overwrite_output_dir
    assert [note.split()[0] for note in a.notes] == [
        "--model_type",
        "--do_lower_case",
        "--per_gpu_eval_batch_size",
        "--per_gpu_train_batch_size",
        "--no_cuda",
    ]


def test_translation():
    notes = []
    words = translate(
        ["--evaluation_strategy", "steps", "--warmup_ratio=0.1", "--fp16_opt_level", "O1", "--seed", "1"], notes
    )
    assert words == ["--eval_strategy", "steps", "--warmup_steps=0.1", "--seed", "1"] and len(notes) == 3
    assert translate(["--resume_from_checkpoint", "--seed", "1"], []) == [
        "--resume_from_checkpoint",
        "True",
        "--seed",
        "1",
    ]
    assert translate(["--resume_from_checkpoint", "x"], []) == ["--resume_from_checkpoint", "x"]


@pytest.mark.parametrize("old", list(arguments.RENAMED))
def test_old_names_lead_to_flags_that_exist(old):
    assert arguments.RENAMED[old] in {action.dest for action in arguments.Parser()._actions}


def test_translated_and_dropped_names_are_not_flags_today():
    known = {action.dest for action in arguments.Parser()._actions}
    assert not known & (set(arguments.RENAMED) | set(arguments.WITHOUT_EFFECT))


def test_one_gpu_is_used_however_many_there_are(monkeypatch):
    """With a batch on each it would be another recipe."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 4))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    found = parse(CPU)
    assert found.train.n_gpu == 1 and found.train.train_batch_size == 32
    assert "torchrun --nproc_per_node 4" in found.notes[-1]


