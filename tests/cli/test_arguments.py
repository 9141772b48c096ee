import dataclasses
import json
import math
import re
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainingArguments
from transformers.hf_argparser import string_to_bool
from transformers.trainer_utils import SchedulerType

from layerdrop.architectures import ModelSpec
from layerdrop.cli import checks
from layerdrop.cli.checks import ranges
from layerdrop.cli.flags import GROUPS, LIBRARY, LIBRARY_HELP, SECTIONS
from layerdrop.cli.parsing import MISNOMERS, RENAMED, WITHOUT_EFFECT, _choose_precision, flags_of, parse, run_parser
from layerdrop.cli.run import unused_gpus
from layerdrop.cli.to_spec import NO_EFFECT, _plain
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import TASKS
from layerdrop.errors import LFS_POINTER, UserError
from layerdrop.finetune.spec import OWN_SETTINGS, TrainSpec, WhenSpec
from layerdrop.runs.command import FLAG_OF, WITHOUT_FLAG, flag_of
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.system.limits import RANGES, SEED, Range, out_of_range

CPU = ["--use_cpu", "--report_to", "none"]
NEED_SETTINGS = ("cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "inverse_sqrt")


def flag_names() -> set[str]:
    return {action.dest for action in run_parser()._actions}


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
    assert {f.name for f in dataclasses.fields(TrainingArguments) if f.init} <= flag_names()
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
        ("--drop_k 2", "--drop_k: needs a strategy. Choose --drop_strategy: top, bottom"),
        ("--drop_strategy top", r"--drop_strategy top: needs the number of layers\. Add --drop_k N\."),
        ("--drop_strategy contribution", "Add --drop_k N or --drop_threshold X"),
        (
            "--drop_strategy contribution --drop_k 1 --drop_threshold 0.9",
            "--drop_k and --drop_threshold contradict each other",
        ),
        (
            "--drop_strategy contribution --drop_k 0 --drop_threshold 0.9",
            "--drop_k and --drop_threshold contradict each other",
        ),
        (
            "--drop_strategy contribution --drop_threshold 95",
            "--drop_threshold 95.0: must be from -1 to 1. Give a cosine similarity. Sajjad et al. use 0.95",
        ),
        (
            "--drop_strategy top --drop_threshold 0.9",
            "--drop_threshold: only with --drop_strategy contribution, not top",
        ),
        ("--drop_strategy top --drop_k -1", "--drop_k -1"),
        (
            "--drop_when elastic --drop_k 99999999999",
            "--drop_k 99999999999: must be from 0 to 1000.",
        ),
        ("--label_separator=-- --label_type class", "--label_separator: only with --label_type multi, not class"),
        ("--drop_strategy top --drop_k two", "--drop_k.*not a whole number: 'two'"),
        ("--drop_strategy list", "needs the ids. Add --drop_layers"),
        ("--drop_layers ,", "--drop_layers: has no layer ids. Write ids as 9,10,11"),
        ("--drop_layers=", "--drop_layers: has no layer ids"),
        ("--drop_layers 9,x", "--drop_layers '9,x': not a list of layer ids"),
        ("--drop_layers 9 --drop_strategy top --drop_k 1", "--drop_layers and --drop_strategy top contradict"),
        ("--drop_layers 9 --drop_order_file x", "--drop_layers and --drop_order_file contradict"),
        ("--drop_layers 9 --drop_k 2", "--drop_k 2: --drop_layers names 1 layers"),
        (
            "--drop_strategy top --drop_k 1 --score_on x",
            "--score_on: only with --drop_strategy contribution, .*, not top",
        ),
        (
            "--drop_strategy top --drop_k 1 --drop_order 3",
            "--drop_order: only with --drop_strategy greedy, optimal, shortlist, not top",
        ),
        (
            "--drop_strategy greedy --drop_k 1 --drop_order 3 --drop_order_file x",
            "--drop_order and --drop_order_file contradict each other",
        ),
        ("--drop_strategy greedy --drop_k 1 --drop_order 3,3", "--drop_order 3,3: must be ids from 0, each once"),
        ("--drop_order 3,1", "--drop_order: needs a strategy. Choose --drop_strategy: greedy, optimal, shortlist\\."),
        ("--drop_threshold 0.9", "--drop_threshold: needs a strategy. Choose --drop_strategy: contribution\\."),
        ("--drop_order_file x", "Choose --drop_strategy: greedy, optimal, shortlist, list\\."),
        (
            "--drop_strategy top --drop_k 1 --drop_order_file x",
            "--drop_order_file: only with --drop_strategy greedy, optimal, shortlist, list, not top",
        ),
        ("--freeze_layers=-1,3,-2", "^--freeze_layers -2, -1: not a layer id. Ids count from 0"),
        ("--task_name mprc", r"--task_name: unknown value 'mprc'. Did you mean 'mrpc'\? Allowed: [^.]*\.$"),
        (
            "--task_name ner --train_file a.csv",
            "value 'ner'. Allowed: .* If your data have other labels, leave this flag out",
        ),
        ("--train_file a.csv --do_eval", "--validation_file is missing, but the validation set is read\\. --valid"),
        ("--train_file a.csv", "--validation_file is missing, but the validation set is read .without any --do_ flag"),
        ("--train_file a.csv", "--validation_share 0.1 uses a fraction of the training set instead"),
        ("--train_file a.csv --do_train --drop_strategy contribution --drop_k 1", "--validation_file is missing"),
        (
            "--train_file a.csv --validation_file b.csv --data_dir c",
            "--data_dir and --train_file contradict each other",
        ),
        ("--dataset_name x --train_file a.csv", "--dataset_name and --train_file contradict each other"),
        ("--dataset_name x --data_dir c", "--dataset_name and --data_dir contradict each other"),
        (
            "--dataset_name x --validation_split v --validation_share 0.1",
            "--validation_share and --validation_split contradict each other",
        ),
        (
            "--train_file a.csv --validation_share 1",
            "--validation_share 1.0: must be above 0 and below 1. Give a fraction",
        ),
        ("--train_split v", "--train_split: only with --dataset_name. Leave --train_split out"),
        ("--dataset_config_name v", "--dataset_config_name: only with --dataset_name. Leave --dataset_config_name out"),
        ("--dataset x", "--dataset: no such flag. Did you mean --dataset_name?"),
        ("--models x", "--models: no such flag. Did you mean --model_name_or_path?"),
        ("--max_train_samples 0", "--max_train_samples 0: must be 1 or more"),
        (
            "--drop_strategy contribution --drop_k 1 --score_split test --do_train --max_predict_samples 5",
            "--max_predict_samples: cannot be combined with --score_split test",
        ),
        ("--num_train_epochs 0", "--num_train_epochs 0.0: must be above 0"),
        ("--max_steps 0", "--max_steps 0: must be above 0. To train --num_train_epochs, leave --max_steps out"),
        ("--save_strategy best", "--save_strategy best: needs --metric_for_best_model. Allowed: loss, accuracy, f1"),
        ("--per_device_train_batch_size 0", "--per_device_train_batch_size 0: must be 1 or more"),
        ("--learning_rate -1", "--learning_rate -1.0: must be 0 or more"),
        ("--do_train False --do_eval False", "nothing to do"),
        ("--resume_from_checkpoint --overwrite_output_dir", "contradict each other"),
        ("--model_name_or_path . --output_dir ../{cwd}", "is the folder of the checkpoint"),
        ("--precision fp32 --bf16", "--precision fp32 and --bf16 contradict each other"),
        ("--precision fp16 --bf16", "--precision fp16 and --bf16 contradict each other"),
        ("--precision bf16 --bf16 False", "--precision bf16 and --bf16 False contradict each other"),
        ("–drop_k 2", "'–drop_k' is not the value of a flag. Write it with two hyphens: --drop_k"),
        ("–––drop_k 2", "Write it with two hyphens: --drop_k"),
        (
            "--seed 1 −1",
            "^'−1' is not .*. --seed takes one value. For several values, use --seeds of layerdrop sweep.$",
        ),
        ("--drop_k 2 --seed 1 2", "^'2' is not the value of a flag. --seed takes one value"),
        ("--drop_k 2 --seed=1 2", "^'2' is not the value of a flag. Write --flag value, for example --seed 1.$"),
        ("--elastic_k 2 4 --seed 4 4", "^'4' is not the value of a flag. --seed takes one value"),
        ("--elastic_k=2 4", "^'4' is not the value of a flag. Write --flag value"),
        ("--drop_k 6 --model_type bert x", "^'x' is not the value of a flag. --model_type takes one value.$"),
        ("--text_columns a b", "^'b' is not the value of a flag. Write two columns without a space, as a,b.$"),
        ("--seed 1 x.yaml", "^'x.yaml' is not .*. Write the name of a configuration file before all flags.$"),
        ("--learning_rate 1e-5 3e-5", "^'3e-5' is not the value of a flag. --learning_rate takes one value.$"),
        ("x --seed 1", "^'x' is not the value of a flag. Write --flag value, for example --seed 1"),
        ("--drop_layers 10 11", "^'11' is not the value of a flag. Write layer ids without spaces, as 9,10,11"),
        (
            "--remove_layers 10 11 --seed 1",
            "^'11' is not the value of a flag. Write layer ids without spaces, as 9,10,11",
        ),
        ("--freeze_layers=0, 1,2", "^'1,2' is not the value of a flag. Write layer ids without spaces, as 9,10,11"),
        ("--drop_layers 9,10 --freeze_layers 1,9", "^--freeze_layers 9: dropped layers cannot be frozen"),
        ("--drop_layers 1,-1,2", "^--drop_layers -1: not a layer id. Ids count from 0"),
        ("--load_best_model_at_end --do_train", "^--load_best_model_at_end: needs evaluations .* Add --do_eval"),
        ("--task_name x --metric_for_best_model f1", "^--task_name: unknown value 'x'"),
        ("--drop_layers x --freeze_layers 1", "^--drop_layers 'x': not a list of layer ids"),
        ("--drop_strategy contribution --drop_k 1 --max_score_samples 0", "--max_score_samples 0: must be 1 or more"),
        ("--json", "--json: only with --dry_run"),
        ("--drop_stratgy top", "--drop_stratgy: no such flag. Did you mean --drop_strategy?"),
        ("--dropk 6", "--dropk: no such flag"),
        ("top", "'top' is not the value of a flag. Write --flag value, for example --seed 1"),
        ("nowhere.yaml", "nowhere.yaml: cannot read the configuration"),
        ("--eval_strategy sometimes", "sometimes"),
    ],
)
def test_what_is_wrong_is_said(argv, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").touch()
    argv = argv.replace("{cwd}", tmp_path.name)
    with pytest.raises(UserError, match=said) as error:
        parse([*argv.split(), *CPU])
    assert "Traceback" not in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_file_that_is_not_here_is_said_before_a_flag_that_is_missing(tmp_path, monkeypatch):
    """With all flags, another machine may have the files."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        parse(["--train_file", "a.csv", *CPU])
    first, second = str(error.value).splitlines()
    assert first == "--train_file a.csv: no such file. Check the path." and second.startswith("--validation_file is m")
    assert parse(["--train_file", "a.csv", "--validation_share", "0.1", *CPU])


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(UserError) as error:
        parse(["--drop_strategy", "top", "--task_name", "x", "--learning_rate", "-1", "--max_seq_length", "0"] + CPU)
    assert [line.split()[0].rstrip(":") for line in str(error.value).splitlines()] == [
        "--drop_strategy",
        "--task_name",
        "--max_seq_length",
        "--learning_rate",
    ]


IN_RANGE = {
    "max_seq_length": ("2", "1"),
    "max_train_samples": ("1", "0"),
    "hold_out": ("0.1", "0 1 nan"),
    "layerdrop_rate": ("0 0.9", "1 -0.1 nan"),
    "num_train_epochs": ("0.5 3", "0 -1 nan 1e999"),
    "max_steps": ("1 -1", "0 -2"),
    "learning_rate": ("0 1", "-1 nan 1e999"),
    "adam_beta1": ("0 0.9", "1 -0.1 nan"),
    "adam_beta2": ("0 0.9", "1 -0.1 nan"),
    "adam_epsilon": ("0 1e-8", "-1 1e999 nan"),
    "weight_decay": ("0 0.1", "-0.5 nan 1e999"),
    "max_grad_norm": ("0 1", "-1 nan 1e999"),
    "label_smoothing_factor": ("0 0.1", "-0.5 1 nan"),
    "warmup_steps": ("0 0.1 10", "-1 nan 1e999"),
    "neftune_noise_alpha": ("0 5", "-1 nan"),
    "seed": ("0 4294967295", "-1 4294967296"),
    "data_seed": ("0", "-1"),
    "eval_accumulation_steps": ("1", "0"),
    "torch_empty_cache_steps": ("1", "0 -1"),
    "dataloader_num_workers": ("0 2", "-1"),
    "ddp_timeout": ("1", "0"),
    "per_device_eval_batch_size": ("1", "0"),
}
"""Flag -> values that it takes, values that it does not take."""


@pytest.mark.parametrize("name", IN_RANGE)
def test_the_range_of_a_number(name):
    good, bad = (values.split() for values in IN_RANGE[name])
    for value in good:
        parse([f"--{name}={value}", *CPU])
    for value in bad:
        said = refusal([f"--{name}={value}"])
        assert re.match(rf"--{name} (-?[\d.]+|nan|inf): must be [^\n]+$", said), said


def test_every_number_has_a_range():
    """A newer library's may be missing: it may be any finite number."""
    numbers = {action.dest for action in run_parser()._actions if action.type in (int, float)}
    missing = numbers - set(RANGES)
    assert missing <= {f.name for f in dataclasses.fields(TrainingArguments)} - set(CHANGES_A_RESULT) - set(NO_EFFECT)


@pytest.mark.parametrize("name", ["logging", "eval", "save"])
def test_steps_count_only_with_their_strategy(name):
    parse([f"--{name}_steps=-1", *CPU])
    assert f"--{name}_steps -1.0: must be" in refusal([f"--{name}_strategy=steps", f"--{name}_steps=-1"])


def test_words_of_a_range():
    words = {
        Range(): "a finite number",
        Range(1): "1 or more",
        Range(0, above=True): "above 0",
        Range(0, 1): "from 0 to 1",
        Range(0, 1, below=True): "0 or more and below 1",
        Range(0, 1, above=True, below=True): "above 0 and below 1",
        SEED: "from 0 to 4294967295",
    }
    assert {str(allowed) for allowed in words} == set(words.values())
    (error,) = out_of_range({"learning_rate": math.inf})
    assert str(error) == "--learning_rate inf: must be a finite number, 0 or more."
    assert (error.flag, error.value) == ("--learning_rate", "inf")
    several = {"seeds": [1, -1], "max_loss": [1.0, math.nan], "seed": None, "no_speedups": True}
    assert list(map(str, out_of_range(several))) == [
        "--seeds -1: must be from 0 to 4294967295.",
        "--max_loss nan: must be a finite number, 0 or more.",
    ]
    assert len(list(out_of_range({"k": [0, 1001], "drop_k": 1001}))) == 2
    assert str(Range(1, whole=True).refusal("n", 1.5)) == "n 1.5: must be a whole number, 1 or more."
    assert str(Range(1).refusal("n", "x")) == "n x: must be a finite number, 1 or more."


def test_which_values_are_numbers_of_a_range():
    for value in (1, 2.5, np.int64(1), np.float32(1.5)):
        assert value in Range(1)
    for value in (True, "1", None, [1], math.inf, math.nan, 2**63, 0.5):
        assert value not in Range(1)
    assert np.int64(1) in Range(1, whole=True) and 1.0 not in Range(1, whole=True)


def test_the_range_of_a_flag_is_whole_as_its_type():
    types = {action.dest: action.type for action in run_parser()._actions if action.type in (int, float)}
    assert {name for name, kind in types.items() if name in RANGES and RANGES[name].whole != (kind is int)} == set()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--optim_args abc", "--optim adamw_torch_fused --optim_args abc: cannot be used ("),
        (
            "--lr_scheduler_type cosine_with_min_lr",
            "--lr_scheduler_type cosine_with_min_lr: cannot be used (One",
        ),
        ("--lr_scheduler_type warmup_stable_decay", "--lr_scheduler_type warmup_stable_decay: cannot be used (get_wsd"),
        (
            '--lr_scheduler_type cosine_with_restarts --lr_scheduler_kwargs {"num_cycles":"x"}',
            "--lr_scheduler_type cosine_with_restarts: cannot be used (could not",
        ),
        ('--lr_scheduler_type polynomial --lr_scheduler_kwargs {"power":-1}', "--lr_scheduler_type polynomial: cannot"),
        (
            '--lr_scheduler_type reduce_lr_on_plateau --lr_scheduler_kwargs {"patience":"x"}',
            "--lr_scheduler_type reduce_lr_on_plateau: cannot be used (",
        ),
        *(
            (f"--{name} --{name}_kwargs {settings}", f"--{name}_kwargs: cannot be used (")
            for name in ("activation_checkpointing", "gradient_checkpointing")
            for settings in ('{"a":1}', '{"debug":true}', '{"every_n_layers":0}')
        ),
        ("--deepspeed x.json", "--deepspeed: x.json: No such file or directory. Correct this"),
        ('--deepspeed {"a":1}', "deepspeed: needs a package that is not installed. Run: pip install deepspeed"),
        ("--accelerator_config mkdocs.yml", "--accelerator_config: the file mkdocs.yml holds no JSON object. Correct"),
        ('--lr_scheduler_kwargs {"x":1}', "--lr_scheduler_type linear: cannot be used ("),
        (
            "--lr_scheduler_kwargs nan",
            "--lr_scheduler_kwargs: not a JSON object: 'nan'. Write it as '{",
        ),
        ("--lr_scheduler_kwargs {", "--lr_scheduler_kwargs: not a JSON object: '{'"),
        ("--accelerator_config abc", "--accelerator_config: not a JSON object: 'abc'"),
        ("--fsdp_config abc", "--fsdp_config: not a JSON object: 'abc'"),
        ("--report_to xyz", "--report_to: unknown value 'xyz'. Allowed: none, all, azure_ml,"),
        ("--train_sampling_strategy xyz", "--train_sampling_strategy: invalid choice: 'xyz' (choose from"),
        ("--eval_strategy xyz", "--eval_strategy: invalid choice: 'xyz' (choose from"),
        ("--fsdp full_shard", "--fsdp: needs several processes, but this run has one. Start them: torchrun"),
        ("--dataloader_persistent_workers", "--dataloader_persistent_workers: needs --dataloader_num_workers"),
        ("--dataloader_multiprocessing_context spawn", "--dataloader_multiprocessing_context: needs --dataloader_num"),
        ("--torch_compile_mode fast", "--torch_compile: cannot be used (Unrecognized mode=fast"),
        ("--torch_compile_backend x", "--torch_compile: cannot be used (Invalid backend: 'x'"),
        ('--accelerator_config {"x":1}', "AcceleratorConfig.__init__() got an unexpected keyword argument 'x'"),
    ],
)
def test_what_only_the_librarys_training_would_refuse(words, said):
    with pytest.raises(UserError) as error:
        parse(["--use_cpu", *words.split()])
    refused = str(error.value)
    assert refused.startswith(said) and len(refused.splitlines()) == 1, refused


def test_a_json_object_of_a_file_or_of_the_command_line(tmp_path, monkeypatch):
    """A pointer of Git LFS is named. A value in braces is no path, so that its `$` names no variable."""
    monkeypatch.chdir(tmp_path)
    Path("acc.json").write_bytes(LFS_POINTER + b"\noid sha256:0\n")
    with pytest.raises(UserError, match="^--accelerator_config: acc.json is a pointer of Git LFS, not the file. Fetch"):
        parse([*CPU, "--accelerator_config", "acc.json"])
    given = '{"even_batches": false, "x": "$HOME"}'
    with pytest.raises(UserError, match="unexpected keyword argument 'x'"):
        parse([*CPU, "--accelerator_config", given])


@pytest.mark.parametrize(
    "words",
    [
        *(f"--lr_scheduler_type {name.value}" for name in SchedulerType if name.value not in NEED_SETTINGS),
        '--lr_scheduler_type cosine_with_min_lr --lr_scheduler_kwargs {"min_lr":1e-6}',
        '--lr_scheduler_type warmup_stable_decay --lr_scheduler_kwargs {"num_decay_steps":3}',
        '--lr_scheduler_type reduce_lr_on_plateau --lr_scheduler_kwargs {"patience":2}',
        '--lr_scheduler_type inverse_sqrt --lr_scheduler_kwargs {"timescale":100}',
        '--activation_checkpointing --activation_checkpointing_kwargs {"every_n_layers":2,"offload":true}',
        '--activation_checkpointing --activation_checkpointing_kwargs {"use_reentrant":true}',
        *(f"--optim {name}" for name in ("adamw_torch", "sgd", "adafactor", "rmsprop", "adagrad")),
    ],
)
def test_what_the_librarys_training_takes(words):
    parse([*words.split(), *CPU])


@pytest.mark.parametrize(
    ("variable", "value", "refused"),
    [
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", True),
        ("ACCELERATE_DYNAMO_BACKEND", "NO", False),
        ("ACCELERATE_TORCH_DEVICE", "cuda", True),
        ("ACCELERATE_USE_FSDP", "true", True),
        ("ACCELERATE_USE_DEEPSPEED", "true", True),
        ("ACCELERATE_USE_DEEPSPEED", "false", False),
        ("ACCELERATE_MIXED_PRECISION", "bf16", False),
    ],
)
def test_what_a_launcher_sets_and_no_record_says_is_refused(variable, value, refused, monkeypatch):
    flags = parse(CPU)
    monkeypatch.setenv(variable, value)
    problems = list(checks._library(flags))
    assert bool(problems) == refused and all(str(e).startswith(f"{variable}={value}, set by `accel") for e in problems)


def test_a_run_is_refused_in_a_process_of_no_launcher(monkeypatch):
    """See check_launcher for the variables."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UserError, match="LOCAL_RANK=1: is set without RANK"):
        parse(CPU)


# ---- configuration files
def test_yaml_and_json(tmp_path):
    settings = {
        "drop_strategy": "list",
        "drop_layers": [9, 10],
        "learning_rate": "3e-5",
        "do_train": True,
        "cache_dir": None,
    }
    (tmp_path / "own.yaml").write_text("train_file: a.csv\nvalidation_file: b.csv\ntext_columns: [title, body]\n")
    assert parse([str(tmp_path / "own.yaml"), *CPU]).to_spec()[0].data.text_columns == ("title", "body")
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
    assert (a.strategy.name, a.drop_layers, a.freeze_layers) == ("list", (10, 11), (0, 1))
    assert (a.train.per_device_eval_batch_size, a.train.per_device_train_batch_size, a.train.use_cpu) == (8, 16, True)
    assert a.train.overwrite_output_dir
    assert [note.split()[0] for note in a.notes] == [
        "--model_type",
        "--do_lower_case",
        "--per_gpu_eval_batch_size",
        "--per_gpu_train_batch_size",
        "--no_cuda",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--warmup_ratio 0.1", "Did you mean --warmup_steps?"),
        ("--overwrite_cache", "no such flag."),
        ("--fp16_opt_level O1", "no such flag."),
    ],
)
def test_other_flags_of_old_scripts_are_refused(words, said):
    assert refusal(words.split()).startswith(f"{words.split()[0]}: no such flag.") and said in refusal(words.split())


def test_old_names_lead_to_flags_that_exist():
    assert set(RENAMED.values()) <= flag_names()


def test_translated_and_dropped_names_are_not_flags_today():
    """Except --local_rank, a field of the library's settings that it reads from the environment."""
    assert flag_names() & {*RENAMED, *WITHOUT_EFFECT, *MISNOMERS} == {"local_rank"}


def test_one_gpu_is_used_however_many_there_are(monkeypatch):
    """With a batch on each it would be another recipe."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 4))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    found = parse(CPU)
    assert found.train.n_gpu == 1 and found.train.train_batch_size == 32
    assert "torchrun --nproc_per_node 4" in unused_gpus(found.train)[0]


# ---- --keep_layers: the complement of --drop_layers
DEMO = "--model_name_or_path demo --task_name demo-rte"


@pytest.mark.parametrize(
    ("kept", "dropped"),
    [("0,1,2,3,4,5", "6,7,8,9,10,11"), ("11,0", "1,2,3,4,5,6,7,8,9,10"), ("1,2,3,4,5,6,7,8,9,10,11", "0")],
)
@pytest.mark.parametrize("more", ["", " --drop_when finetuned --freeze_dropped", " --drop_strategy list"])
def test_kept_layers_are_the_complement_of_dropped_ones(kept, dropped, more):
    run, how = asked(f"{DEMO} --keep_layers {kept}{more}")
    other = asked(f"{DEMO} --drop_layers {dropped}{more}")
    assert (run, run.id, how.folder) == (other[0], other[0].id, other[1].folder)


def test_keeping_every_layer_drops_nothing():
    assert spec(f"{DEMO} --keep_layers 0,1,2,3,4,5,6,7,8,9,10,11").id == spec(DEMO).id


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--keep_layers 12,3", "--keep_layers: no layer 12 in a model of 12 layers"),
        ("--keep_layers ,", "--keep_layers: has no layer ids. Write ids as 9,10,11"),
        ("--keep_layers=", "--keep_layers: has no layer ids"),
        ("--keep_layers 0,x", "--keep_layers '0,x': not a list of layer ids"),
        ("--keep_layers=-1,2", "--keep_layers -1: not a layer id. Ids count from 0."),
        ("--keep_layers 0 1", "'1' is not the value of a flag. Write layer ids without spaces"),
        ("--keep_layers 0 --drop_layers 1", "--keep_layers and --drop_layers contradict each other. Give one of them."),
        ("--keep_layers 0 --drop_strategy top", "--keep_layers and --drop_strategy top contradict each other."),
        ("--keep_layers 0 --drop_k 3", "--keep_layers and --drop_k contradict each other."),
        ("--keep_layers 0 --drop_k 0", "--keep_layers and --drop_k contradict each other."),
        (
            "--keep_layers 0 --drop_strategy list --drop_order_file x",
            "--keep_layers and --drop_order_file contradict each other.",
        ),
        (
            "--keep_layers 0,1 --freeze_layers 1,9",
            "--freeze_layers 9: dropped layers cannot be frozen. Name kept layers only.",
        ),
    ],
)
def test_kept_layers_that_make_no_sense(words, said):
    with pytest.raises(UserError) as error:
        spec(f"{DEMO} {words}")
    assert str(error.value).startswith(said) and len(str(error.value).splitlines()) == 1, error.value


# ---- what people type
@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--model", "--model_name_or_path"),
        ("--batch_size=8", "--per_device_train_batch_size"),
        ("--batch-size", "--per_device_train_batch_size"),
        ("--epochs", "--num_train_epochs"),
        ("--lr", "--learning_rate"),
        ("--k", "--drop_k"),
        ("--strategy", "--drop_strategy"),
        ("--first_learning_rate", "--start_learning_rate or --teacher_learning_rate"),
    ],
)
def test_what_people_type_is_answered(typed, said):
    name = typed.partition("=")[0]
    assert refusal([typed]) == f"{name}: no such flag. Did you mean {said}? All flags: layerdrop run --help_all."


def test_what_people_type_leads_to_flags():
    for hint in MISNOMERS.values():
        for word in re.findall(r"--(\w+)", hint):
            assert word in flag_names(), hint


# ---- every flag: into the identity, or in the list of flags without effect; and on into TrainingArguments
TOP = "--task_name rte --drop_strategy top --drop_k 2"
OWN = "--train_file a.csv --validation_file b.csv"
DATASET = "--dataset_name x --do_train --do_eval --do_predict"
CONTRIBUTION = "--drop_strategy contribution --drop_k 2"
CASES = {
    "model_name_or_path": (TOP, "other"),
    "tokenizer_name": (TOP, "other"),
    "model_revision": (TOP, "v2"),
    "task_name": (TOP, "cola"),
    "train_file": (OWN, "c.csv"),
    "validation_file": (OWN, "c.csv"),
    "test_file": (f"{OWN} --do_predict --test_file t.csv", "u.csv"),
    "dataset_name": ("--dataset_name x", "y"),
    "dataset_config_name": (DATASET, "c"),
    "train_split": (DATASET, "t"),
    "validation_split": (DATASET, "v"),
    "test_split": (DATASET, "u"),
    "validation_share": ("--dataset_name x", "0.2"),
    "text_columns": (OWN, "title,body"),
    "label_column": (OWN, "grade"),
    "label_type": (OWN, "number"),
    "label_separator": (f"{OWN} --label_type multi", ";"),
    "class_weights": (TOP, "balanced"),
    "positive_label": (OWN, "spam"),
    "skip_bad_rows": (OWN, "True"),
    "drop_strategy": (TOP, "bottom"),
    "drop_k": (TOP, "3"),
    "drop_threshold": ("--drop_strategy contribution --drop_threshold 0.9", "0.95"),
    "drop_layers": ("--drop_layers 3", "4"),
    "keep_layers": ("--model_name_or_path demo --task_name demo-rte --keep_layers 0,1", "0"),
    "drop_order_file": ("--drop_strategy greedy --drop_k 1 --drop_order_file 1.txt", "2.txt"),
    "drop_order": ("--drop_strategy greedy --drop_k 1 --drop_order 3,4", "4,3"),
    "weight_scope": ("--drop_strategy variance --drop_k 2", "layer"),
    "score_on": (CONTRIBUTION, "other"),
    "score_split": (CONTRIBUTION, "train"),
    "max_score_samples": (CONTRIBUTION, "9"),
    "hold_out": (TOP, "0.15"),
    "layerdrop_rate": (TOP, "0.2"),
    "score_store": (CONTRIBUTION, "kept"),
    "drop_when": (TOP, "finetuned"),
    "freeze_dropped": (f"{TOP} --drop_when finetuned", "True"),
    "drop_step": (f"{TOP} --drop_when gradual", "2"),
    "drop_every_epochs": (f"{TOP} --drop_when gradual", "1"),
    "elastic_k": (f"{TOP} --drop_when elastic", "1,2,3"),
    "finetune_again": (f"{TOP} --drop_when elastic", "True"),
    "replacing_rate": (f"{TOP} --theseus", "0.7"),
    "replacing_schedule": (f"{TOP} --theseus", "constant"),
    "replacing_steps": (f"{TOP} --theseus", "0.7"),
    "start_num_train_epochs": (f"{TOP} --drop_when after", "5"),
    "start_learning_rate": (f"{TOP} --drop_when finetuned", "1e-4"),
    "teacher_num_train_epochs": (f"{TOP} --teacher auto", "5"),
    "teacher_learning_rate": (f"{TOP} --teacher auto", "1e-4"),
    "teacher": (TOP, "auto"),
    "distill": (f"{TOP} --teacher auto", "patient"),
    "distill_temperature": (f"{TOP} --teacher auto", "2"),
    "distill_weight": (f"{TOP} --teacher auto", "0.3"),
    "distill_states_weight": (f"{TOP} --teacher auto --distill patient", "10"),
    "distill_attention": (f"{TOP} --teacher auto --distill layers", "True"),
    "freeze_layers": (TOP, "0,1"),
    "json": ("--dry_run", "True"),
    "do_train": ("--do_eval", "True"),
    "do_eval": ("--do_train", "True"),
    "do_predict": ("--do_train", "True"),
    "precision": ("--precision fp32", "bf16"),
    "bf16": ("", "True"),
    "lr_scheduler_type": (TOP, "cosine"),
    "lr_scheduler_kwargs": (f"{TOP} --lr_scheduler_type polynomial", '{"power": 2}'),
    "optim_args": (TOP, "a=1"),
    "adam_beta1": (TOP, "0.5"),
    "adam_beta2": (TOP, "0.5"),
    "label_smoothing_factor": (TOP, "0.1"),
    "dataloader_persistent_workers": (f"{TOP} --dataloader_num_workers 2", "True"),
    "torch_compile_backend": (TOP, "eager"),
    "torch_compile_mode": (TOP, "default"),
    "optim": (TOP, "adafactor"),
    "accelerator_config": (TOP, '{"even_batches": false}'),
    "activation_checkpointing_kwargs": (TOP, '{"use_reentrant": false}'),
    "gradient_checkpointing_kwargs": (TOP, '{"use_reentrant": false}'),
    "logging_strategy": (TOP, "steps"),
    "eval_strategy": (TOP, "steps"),
    "save_strategy": (TOP, "no"),
    "hub_strategy": (TOP, "end"),
    "log_level": (TOP, "error"),
    "log_level_replica": (TOP, "error"),
    "include_num_input_tokens_seen": (TOP, "True"),
    "disable_tqdm": (f"{TOP} --disable_tqdm", "False"),
    "dataloader_multiprocessing_context": (f"{TOP} --dataloader_num_workers 2", "spawn"),
    "debug": (TOP, "underflow_overflow"),
    "metric_for_best_model": (TOP, "accuracy"),
    "train_sampling_strategy": (TOP, "random"),
    "dataloader_prefetch_factor": (f"{TOP} --dataloader_num_workers 2", "3"),
    "report_to": (TOP, "kubeflow"),  # needs no package
    "resume_from_checkpoint": (TOP, "auto"),
    "adam_epsilon": (TOP, "1e-6"),
    "fsdp_config": (TOP, '{"min_num_params": 1}'),
}
"""Flag -> (words of a run that looks at it, a value that is not in them). Else TOP and a value by the flag's type."""
BY_HAND = {
    "tf32": True,
    "fp16": True,
    "deepspeed": "x.json",
    "fsdp": "full_shard",
    "dataloader_pin_memory": True,
    "ddp_backend": "gloo",
    "parallelism_config": "x",
    "liger_kernel_config": {"rope": True},
}
"""Values that this machine cannot use, or no command line: put in after parsing."""
PARTS = ("model", "data", "drop", "when", "teacher", "train")
FLAGS = sorted({action.dest: action for action in reversed(run_parser()._actions)}.items())


def case(name: str, action) -> tuple[list[str], str]:
    """Words of a run, and a value of the flag that differs from the one there."""
    if name in CASES:
        words, value = CASES[name]
        return words.split(), value
    if action.type is string_to_bool:
        return TOP.split(), str(not action.default)
    if action.type in (int, float):
        return TOP.split(), str((action.default or 0) + 3)
    return TOP.split(), "3"


def carried(run: RunSpec, how: Options) -> dict:
    """The settings of TrainingArguments that a run is built from."""
    recipe = {k: v for k, v in vars(run.train or TrainSpec()).items() if k not in OWN_SETTINGS}
    own = {"output_dir": how.folder, "seed": run.seed, "use_cpu": how.use_cpu}
    own |= {name: run.precision == name for name in ("bf16", "fp16")}
    return recipe | dict(how.trainer) | dict(run.train.other if run.train else {}) | own


@pytest.fixture
def order_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, order in (("1.txt", "1\n2\n"), ("2.txt", "2\n1\n")):
        (tmp_path / name).write_text(order)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("name", "action"), FLAGS, ids=[name for name, _ in FLAGS])
def test_every_flag_moves_the_id_or_is_in_the_list(name, action, order_files, monkeypatch):
    """And TrainingArguments built from the spec and the options have its value."""
    monkeypatch.setattr("layerdrop.cli.parsing.has_bf16", lambda use_cpu: False)
    words, value = case(name, action)
    without = parse([*CPU, *words])
    if name in BY_HAND:
        changed = parse([*CPU, *words])
        setattr(changed.train, name, BY_HAND[name])
        changed.train.precision = "fp16" if name == "fp16" else "fp32"
    else:
        changed = parse([*CPU, *words, f"--{name}", value])
        groups = [getattr(changed, name) for name in PARTS]
        known = [vars(group)[name] for group in groups if name in vars(group)]
        old = [vars(g)[name] for g in (getattr(without, group) for group in PARTS) if name in vars(g)]
        assert known and (known != old or name in ("local_rank", "use_cpu")), f"{value} is the flag's value without it"
    (old_spec, _), (new_spec, how) = without.to_spec(), changed.to_spec()
    assert (new_spec.id == old_spec.id) == (name in NO_EFFECT), name
    settings_of_library = {f.name for f in dataclasses.fields(TrainingArguments) if f.init}
    if name in settings_of_library - {"do_train", "do_eval", "do_predict", "resume_from_checkpoint", "local_rank"}:
        values = carried(new_spec, how)
        json.dumps(values)
        if name in BY_HAND:
            assert values[name] == BY_HAND[name]
        else:
            assert _plain(getattr(TrainingArguments(**values), name)) == _plain(getattr(changed.train, name))


def test_the_list_names_flags_once_each():
    assert len(NO_EFFECT) == len(set(NO_EFFECT)) and set(NO_EFFECT) <= flag_names()


CHANGES_A_RESULT = (
    "model_name_or_path model_revision tokenizer_name from_scratch task_name data_dir train_file validation_file "
    "dataset_name dataset_config_name train_split validation_split validation_share "
    "text_columns label_column label_type label_separator positive_label skip_bad_rows max_seq_length "
    "pad_to_max_length "
    "max_train_samples max_eval_samples hold_out drop_strategy drop_k drop_threshold drop_layers keep_layers "
    "drop_order_file drop_order weight_scope score_on layerdrop_rate drop_when freeze_dropped drop_step "
    "elastic_k finetune_again "
    "drop_every_epochs theseus replacing_rate replacing_schedule replacing_steps start_num_train_epochs "
    "start_learning_rate teacher teacher_num_train_epochs teacher_learning_rate "
    "distill distill_temperature distill_weight distill_states_weight distill_attention score_split "
    "max_score_samples freeze_layers freeze_embeddings do_train seed data_seed precision bf16 fp16 no_speedups tf32 "
    "num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps auto_find_batch_size "
    "learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args optim_target_modules "
    "weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm label_smoothing_factor class_weights "
    "neftune_noise_alpha "
    "train_sampling_strategy dataloader_drop_last dataloader_in_order load_best_model_at_end ignore_data_skip "
    "full_determinism torch_compile torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config "
    "activation_checkpointing_kwargs gradient_checkpointing_kwargs accelerator_config "
    "average_tokens_across_devices parallelism_config deepspeed fsdp fsdp_config label_names"
).split()


def test_what_changes_a_result_is_not_in_the_list():
    """Each flag is in one of two lists; one of a newer version of the library may be in neither."""
    assert not set(CHANGES_A_RESULT) & set(NO_EFFECT) and set(CHANGES_A_RESULT) <= flag_names()
    newer = flag_names() - set(CHANGES_A_RESULT) - set(NO_EFFECT)
    assert newer <= {f.name for f in dataclasses.fields(TrainingArguments)}


@pytest.mark.parametrize(
    "words",
    [
        *("--output_dir elsewhere", "--logging_steps 3", "--per_device_eval_batch_size 8", "--save_strategy no"),
        *("--disable_tqdm", "--run_name x", "--drop_k 2", "--learning_rate 2e-5", "--do_predict --do_train --do_eval"),
        *("--weight_scope layer", "--dataloader_num_workers 2", "--resume_from_checkpoint x", "--save_model no"),
        *("--eval_strategy no", "--log_on_each_node False", "--activation_checkpointing", "--hub_model_id x"),
    ],
)
def test_words_that_change_no_result(words):
    assert spec(f"{TOP} {words}").id == spec(TOP).id


def test_a_flag_that_no_list_knows_moves_the_id(monkeypatch):
    """As one of a newer version of the library."""
    shorter = tuple(name for name in NO_EFFECT if name != "run_name")
    monkeypatch.setattr("layerdrop.cli.to_spec.NO_EFFECT", shorter)
    assert spec("--run_name x").id != spec("").id and spec("--run_name x").train.other == {"run_name": "x"}


@pytest.mark.parametrize("chooses", ["--load_best_model_at_end", "--lr_scheduler_type reduce_lr_on_plateau"])
@pytest.mark.parametrize(
    "words",
    [
        "--eval_strategy steps --eval_steps 7 --save_strategy steps --save_steps 7",
        "--eval_delay 1",
        "--metric_for_best_model accuracy",
        "--greater_is_better True",
    ],
)
def test_evaluations_that_choose_are_part_of_the_identity(chooses, words):
    base, other = spec(chooses), spec(f"{chooses} {words}")
    assert base.id != other.id and spec(words).id == spec("").id
    names = [word[2:] for word in words.split() if word.startswith("--e") or word.startswith(("--m", "--g"))]
    how = options(f"{chooses} {words}")
    assert set(names) <= set(other.train.other) and not set(names) & set(how.trainer)
    rebuilt = TrainingArguments(**carried(other, how))
    parsed = parse([*f"{chooses} {words}".split(), *CPU]).train
    assert all(getattr(rebuilt, name) == getattr(parsed, name) for name in (*names, "save_strategy", "save_steps"))


def test_saving_chooses_only_for_the_best_checkpoint():
    plateau = "--lr_scheduler_type reduce_lr_on_plateau"
    assert spec(plateau).id == spec(f"{plateau} --save_strategy no").id
    best = "--load_best_model_at_end --eval_strategy steps --eval_steps 2 --save_strategy steps"
    assert spec(f"{best} --save_steps 2").id != spec(f"{best} --save_steps 4").id
    assert spec("--load_best_model_at_end").train.other == {
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
    }


def test_metric_with_and_without_prefix_is_one():
    best = "--task_name rte --load_best_model_at_end --metric_for_best_model"
    assert spec(f"{best} eval_accuracy").id == spec(f"{best} accuracy").id != spec(f"{best} loss").id
    assert spec(f"{best} accuracy").train.other["greater_is_better"] is True


# ---- fields of the spec
def test_the_papers_recipe():
    """Sajjad et al. (2023) and Peer et al. (2022): 3 epochs, batch 32, AdamW, 2e-5, linear, no warm-up, no decay."""
    papers = {
        "num_train_epochs": 3.0,
        "max_steps": -1,
        "per_device_train_batch_size": 32,
        "gradient_accumulation_steps": 1,
        "learning_rate": 2e-5,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.0,
        "optim": "adamw_torch_fused",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "label_smoothing_factor": 0.0,
        "train_sampling_strategy": "group_by_length",
        "data_seed": None,
        "freeze_layers": (),
        "freeze_embeddings": False,
        "class_weights": None,
        "layerdrop_rate": None,
        "other": {},
    }
    assert vars(TrainSpec()) == papers
    run = parse(["--report_to", "none"]).to_spec()[0]
    assert run.train == TrainSpec()
    assert json.dumps(vars(run.train)) == json.dumps(vars(TrainSpec()))  # 0 is not 0.0 in an id
    assert (run.seed, run.data.max_seq_length, run.processes, run.no_speedups) == (42, 128, 1, False)
    assert run == RunSpec(ModelSpec("bert-base-uncased"), DataSpec("mrpc"), precision=run.precision)


def test_settings_that_differ_from_the_librarys_defaults():
    trainer = options("--disable_tqdm False").trainer
    assert trainer == {
        "per_device_eval_batch_size": 32,
        "eval_strategy": "epoch",
        "logging_strategy": "epoch",
        "logging_nan_inf_filter": False,
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "remove_unused_columns": False,
    }
    assert options("--disable_tqdm False --do_train").trainer == {k: v for k, v in trainer.items() if k[:5] != "eval_"}


def test_progress_bar_only_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert "disable_tqdm" not in options("").trainer
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert options("").trainer["disable_tqdm"] is True


@pytest.mark.parametrize(
    "words",
    ["--drop_k 0", *(f"--drop_strategy {name} --drop_k 0" for name in ("top", "contribution", "greedy", "list"))],
)
def test_dropping_nothing_is_one_run_by_any_strategy(words):
    run, how = asked(words)
    assert run.drop == DropSpec() and run.id == spec("").id and how.folder == options("").folder
    noted = "--drop_strategy" in words
    assert [note.split(" has no effect")[0] for note in how.notes] == [words.rpartition(" --")[0]] * noted


def test_a_threshold_may_drop_nothing_but_is_a_choice():
    assert spec("--drop_strategy contribution --drop_threshold 0").drop == DropSpec(
        "contribution", threshold=0.0, score_split="validation"
    )


def test_drop_spec_of_every_kind(order_files):
    assert spec("--drop_layers 10,3").drop == DropSpec("list", layers=(3, 10)) == spec("--remove_layers 3,10").drop
    assert spec("--drop_layers 10,3 --drop_k 2").id == spec("--drop_strategy list --drop_layers 3,10").id
    assert spec("--drop_strategy top --drop_k 2 --score_split train --weight_scope layer").drop == DropSpec("top", 2)
    assert spec(f"{CONTRIBUTION} --score_on x --max_score_samples 9 --weight_scope layer").drop == DropSpec(
        "contribution", 2, score_on="x", score_split="validation", score_samples=9
    )
    assert spec("--drop_strategy variance --drop_k 2 --max_score_samples 9").drop == DropSpec(
        "variance", 2, weight_scope="final"
    )
    assert spec("--drop_strategy greedy --drop_k 2 --task_name rte").drop.found == (0, 7)
    assert spec("--drop_strategy greedy --drop_k 2 --drop_order_file 2.txt").drop.found == (1, 2)
    assert spec("--drop_strategy optimal --drop_k 2 --task_name rte").drop.found == (5, 8)
    nothing = parse(["--drop_strategy", "optimal", "--drop_k", "2", "--task_name", "qqp", *CPU])
    with pytest.raises(UserError, match="--drop_strategy optimal: nothing is published for bert-base-uncased on qqp"):
        nothing.to_spec()


def test_reservations_about_published_choices():
    notes = [asked(f"--drop_strategy {words}")[1].notes for words in (
        "greedy --drop_k 2 --task_name mnli", "optimal --drop_k 2 --task_name rte", "greedy --drop_k 2 --task_name rte")
    ]  # fmt: skip
    assert "mismatched validation set" in notes[0][0] and "on the validation set" in notes[1][0] and not notes[2]


def test_own_files():
    words = f"{OWN} --test_file t.csv --text_columns title,body --label_column grade --label_type class --skip_bad_rows"
    columns = {"text_columns": ("title", "body"), "label_column": "grade", "label_type": "class", "skip_bad_rows": True}
    both = (("train", "a.csv"), ("validation", "b.csv"))
    assert spec(words).data == DataSpec("a", "files", both, **columns)
    assert options(words).test == "t.csv"
    assert spec(f"{words} --do_train").data.files == both[:1]
    assert spec(f"{words} --do_eval").data.files == both[1:]
    assert spec(f"{words} --do_predict").data.files == ()
    assert spec(f"{words} --do_train {CONTRIBUTION}").data.files == both
    assert spec(f"{words} {CONTRIBUTION} --score_split test").data.files == (*both, ("test", "t.csv"))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("--train_file x/reviews.csv --validation_file b.csv", "reviews"),
        ("--train_file x/reviews/train.csv --validation_file b.csv", "reviews"),
        ("--do_eval --validation_file x/reviews/dev.csv", "reviews"),
        ("--train_file RTE/train.csv --validation_file b.csv", "RTE-files"),
        ("--train_file sst-2.csv --validation_file b.csv --task_name cola", "cola"),
    ],
)
def test_name_of_an_own_task(words, name):
    assert spec(words).data.task == name


@pytest.mark.parametrize(
    ("words", "source", "skips", "idle"),
    [
        ("", "hub", False, ["--text_columns", "--label_column", "--label_type", "--skip_bad_rows"]),
        ("--data_dir x", "x", True, ["--text_columns", "--label_column", "--label_type"]),
        (
            "--task_name demo-rte --data_dir x",
            "demo",
            False,
            ["--text_columns", "--label_column", "--label_type", "--skip_bad_rows", "--data_dir"],
        ),
    ],
)
def test_flags_of_own_files_move_no_other_id(words, source, skips, idle):
    run, how = asked(f"{words} --text_columns a --label_column b --label_type class --skip_bad_rows")
    assert run.data == dataclasses.replace(spec(words).data, skip_bad_rows=skips) and run.data.source == source
    assert [note.split()[0] for note in how.notes] == idle


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        ("top --score_split train --weight_scope layer", ["--score_split", "--weight_scope"]),
        ("contribution --score_split train --max_score_samples 9", []),
        ("contribution --weight_scope layer", ["--weight_scope"]),
        ("variance --weight_scope layer --max_score_samples 9", ["--max_score_samples"]),
    ],
)
def test_flags_without_effect_are_said(words, idle):
    notes = options(f"--drop_k 2 --drop_strategy {words}").notes
    assert [note.split()[0] for note in notes] == idle and all("has no effect on --drop_strategy" in n for n in notes)


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        ("--logging_steps 5 --eval_steps 5 --save_steps 5", ["--logging_steps", "--eval_steps", "--save_steps"]),
        ("--logging_steps 5 --logging_strategy steps --save_steps 5 --save_strategy steps", []),
        ("--do_train --eval_steps 5 --eval_strategy steps", ["--eval_strategy", "--eval_steps"]),
        ("--do_train --eval_strategy no", []),
        ("--drop_when after --start_learning_rate 1e-3 --learning_rate 1e-4", ["--learning_rate"]),
        ("--drop_when finetuned --start_learning_rate 1e-3 --learning_rate 1e-4", []),
        ("--drop_when elastic --start_num_train_epochs 2 --num_train_epochs 4", ["--num_train_epochs"]),
        ("--drop_when elastic --start_num_train_epochs 2 --num_train_epochs 4 --finetune_again", []),
        ("--drop_when elastic --num_train_epochs 4", []),
    ],
)
def test_flags_that_another_flag_makes_idle_are_said(words, idle):
    notes = options(f"--drop_k 2 --drop_strategy top {words}").notes
    assert [note.split()[0] for note in notes] == idle and all("has no effect" in note for note in notes)


def test_splits_to_read():
    def splits(words):
        return parse([*words.split(), *CPU]).splits

    assert splits("") == ["train", "validation"]
    assert splits("--do_eval") == ["validation"]
    assert splits("--dry_run --drop_strategy top --drop_k 1") == []
    assert splits("--dry_run --drop_strategy contribution --drop_k 1") == ["validation"]
    assert splits("--dry_run --drop_strategy contribution --drop_k 0") == []
    assert splits("--do_train --drop_strategy contribution --drop_k 1 --score_split test") == ["train", "test"]
    assert splits("--dry_run --train_file a.csv") == ["train"]


def test_hub_is_asked_only_if_needed(tmp_path):
    def needs(words):
        return parse([*words.split(), *CPU]).needs_hub

    local = f"--model_name_or_path {tmp_path}"
    assert needs("") and needs(local) and needs(f"--data_dir {tmp_path}")
    assert not needs(f"{local} --data_dir {tmp_path}")
    assert not needs(f"{local} --dry_run --drop_strategy top --drop_k 1")
    assert not needs("--model_name_or_path demo --task_name demo-rte")
    assert needs(f"{local} --data_dir {tmp_path} --drop_strategy variance --drop_k 1 --score_on x")
    assert needs(f"{local} --data_dir {tmp_path} --tokenizer_name x")


def test_evaluation_alone():
    words = "--do_eval --learning_rate 1 --max_train_samples 9 --max_eval_samples 8 --freeze_layers 0 --run_name x"
    run, how = asked(f"{words} --load_best_model_at_end --seed 3")
    assert run.train is None and (run.data.max_train_samples, run.data.max_eval_samples) == (None, 8)
    assert (how.evaluate, how.predict, how.save_model, how.folder) == (
        *(True, False, False),
        "runs/bert-base-uncased_mrpc_full_k0_seed3_eval",
    )
    assert how.notes == (
        "no effect without training: --freeze_layers, --learning_rate, --load_best_model_at_end, --max_train_samples",
    )
    scored = spec(f"--do_eval --max_train_samples 9 {CONTRIBUTION} --score_split train")
    assert scored.data.max_train_samples == 9


def test_options():
    words = "--do_train --do_predict --max_predict_samples 3 --cache_dir c --token t --trust_remote_code"
    how = options(f"{words} --save_model no --overwrite_output_dir --output_dir o --run_name x --disable_tqdm False")
    assert how == Options(
        *("o", False, True),
        max_predict_samples=3,
        save_model=False,
        overwrite=True,
        use_cpu=True,
        cache_dir="c",
        token="t",
        trust_remote_code=True,
        trainer={k: v for k, v in options("--do_train --disable_tqdm False").trainer.items()} | {"run_name": "x"},
    )
    assert options("").rolling_checkpoints
    assert not options("--save_strategy epoch").rolling_checkpoints
    assert not options("--load_best_model_at_end").rolling_checkpoints


@pytest.mark.parametrize(
    ("words", "resume"),
    [
        ("", None),
        ("--resume_from_checkpoint", "last"),
        ("--resume_from_checkpoint --seed 1", "last"),
        ("--resume_from_checkpoint True", "last"),
        ("--resume_from_checkpoint last", "last"),
        ("--resume_from_checkpoint auto", "auto"),
        ("--resume_from_checkpoint False --overwrite_output_dir", None),
        ("--resume_from_checkpoint runs/x/checkpoint-7", "runs/x/checkpoint-7"),
    ],
)
def test_resume(words, resume):
    assert options(words).resume == resume


def test_no_speedups():
    assert spec("--no_speedups").no_speedups and spec("--no_speedups").id != spec("").id


def test_processes_are_part_of_the_identity(monkeypatch):
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda self: 2))
    assert spec("").processes == 2


@pytest.mark.parametrize(
    ("words", "fast", "expected"),
    [
        ("", True, "bf16"),
        ("", False, "fp32"),
        ("--bf16 False", True, "fp32"),
        ("--bf16=False", True, "fp32"),
        ("--fp16 False", True, "bf16"),
        ("--fp16 False", False, "fp32"),
        ("--bf16", False, "bf16"),
        ("--precision bf16 --fp16 False", False, "bf16"),
        ("--precision fp32 --bf16 False", True, "fp32"),
    ],
)
def test_precision(words, fast, expected, monkeypatch):
    monkeypatch.setattr("layerdrop.cli.parsing.has_bf16", lambda use_cpu: fast)
    run, how = asked(words)
    assert run.precision == expected
    assert not {"bf16", "fp16"} & (set(how.trainer) | set(run.train.other))


@pytest.mark.parametrize(
    ("changes", "expected", "filtered"),
    [
        ({"fp16": True}, "fp16", True),
        ({"precision": "fp16"}, "fp16", True),
        ({}, "bf16", False),
        ({"use_cpu": True}, "fp32", False),
    ],
)
def test_precision_with_a_gpu(changes, expected, filtered, monkeypatch):
    for name in ("torch.cuda.is_available", "torch.accelerator.is_available"):
        monkeypatch.setattr(name, lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    off = {"bf16": False, "fp16": False, "precision": "auto", "use_cpu": False, "logging_nan_inf_filter": None}
    namespace = Namespace(**off | changes)
    _choose_precision(namespace, frozenset(changes))
    assert (namespace.precision, namespace.logging_nan_inf_filter) == (expected, filtered)
    assert (namespace.bf16, namespace.fp16) == (expected == "bf16", expected == "fp16")
    assert namespace.use_cpu == ("use_cpu" in changes)


@pytest.mark.parametrize("words", ["--fp16", "--precision fp16"])
def test_fp16_without_a_gpu_is_fp32(words):
    """The library's own tests of its scripts add --fp16 wherever torch has it."""
    run, how = asked(words)
    assert run.precision == "fp32" and how.trainer["logging_nan_inf_filter"] is False
    assert how.notes == (f"{words}: needs a GPU; the run is in fp32",)


# ---- checks
@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        *((f"--task_name {name}", ["loss", *task.metrics]) for name, task in TASKS.items() if name != "mnli"),
        (
            "--task_name mnli",
            ["loss", "accuracy", "matched_loss", "matched_accuracy", "mismatched_loss", "mismatched_accuracy"],
        ),
        (f"--task_name mnli {OWN}", ["loss", "accuracy"]),
        (f"{OWN} --label_type number", ["loss", "pearson", "spearmanr"]),
        (f"{OWN} --label_type class", ["loss", "accuracy", "f1", "f1_macro"]),
        (f"{OWN} --label_type multi", ["loss", "f1_micro", "f1_macro", "exact_match"]),
        (
            f"{OWN} --task_type token",
            ["loss", "accuracy", "f1_macro", "entity_f1", "entity_precision", "entity_recall"],
        ),
        (
            OWN,
            [
                *("loss", "accuracy", "f1", "f1_macro", "pearson", "spearmanr", "f1_micro", "exact_match"),
                *("entity_f1", "entity_precision", "entity_recall"),
            ],
        ),
    ],
)
def test_metric_for_the_best_model(words, allowed):
    for name in allowed:
        for metric in (name, f"eval_{name}"):
            best = parse([*words.split(), "--load_best_model_at_end", "--metric_for_best_model", metric, *CPU])
            assert best.train.greater_is_better == (not name.endswith("loss"))
    every = {"loss", "accuracy", "f1", "f1_macro", "pearson", "matched_accuracy", "xaccuracy", "matthews_correlation"}
    for name in every - set(allowed):
        said = refusal([*words.split(), "--metric_for_best_model", name])
        assert said.startswith(f"--metric_for_best_model {name}: not a metric of") and said.endswith(
            f"Allowed: {', '.join(allowed)}."
        )


def test_each_problem_is_said_once():
    words = "--task_name mprc --metric_for_best_model f1 --drop_strategy tpo --drop_k 1 --dry_run"
    lines = refusal(words.split()).splitlines()
    assert [line.split(":")[0] for line in lines] == ["--drop_strategy", "--task_name"]


def test_ranges():
    assert ranges([]) == "" and ranges([3]) == "3" and ranges([4, 3]) == "3, 4"
    assert ranges([11, 3, 4, 5, 5, 9]) == "3 to 5, 9, 11"


def test_the_forks_defaults_drop_and_freeze_nothing():
    for words in (["--remove_layers", "", "--freeze_layers", ""], ["--remove_layers=", "--freeze_layers="]):
        run = parse([*words, "--seed", "7", *CPU]).to_spec()[0]
        assert run == spec("--seed 7") and run.drop == DropSpec()
    assert "--drop_layers: has no layer ids" in refusal(["--drop_layers", ""])
    assert refusal(["--remove_layers"]).startswith("--drop_layers: expected one argument")


def test_a_study_is_not_one_run(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("recipe: x.yaml\ngrid:\n  k: [1, 2]\n")
    assert refusal([str(path)]) == f"{path}: is a study of many runs. Execute it with: layerdrop sweep {path}"


def test_a_search_is_not_one_run(tmp_path):
    path = tmp_path / "search.yaml"
    path.write_text("model_name_or_path: demo\nmethod: greedy\n")
    assert refusal([str(path)]) == f"{path}: is a search. Execute it with: layerdrop search {path}"


def test_flags_that_help_shows_are_those_that_are_parsed():
    """Help is written without the library: its names, types and defaults are compared here."""
    actions = {action.dest: action for action in reversed(run_parser()._actions)}
    for f in (f for group in GROUPS for f in dataclasses.fields(group)):
        assert actions[f.name].default == f.default and actions[f.name].help == f.metadata["help"], f.name
    for name, (value, text) in LIBRARY.items():
        default = text.partition("Default: ")[2].rstrip(".")
        assert actions[name].type is not string_to_bool or not value
        if default:
            shown = getattr(actions[name].default, "value", actions[name].default)
            assert default == (f"{shown:g}" if isinstance(shown, float) else str(shown)), name
    described = [f.name for group in GROUPS for f in dataclasses.fields(group)] + list(LIBRARY)
    assert sorted(described) == sorted(name for _, names in SECTIONS.values() for name in names)


# ---- words of messages
def test_every_setting_has_a_flag_that_exists():
    fields = spec(TOP).flat()
    assert set(FLAG_OF) | set(WITHOUT_FLAG) <= set(fields)
    for name in fields:
        for word in [] if name in WITHOUT_FLAG else flag_of(name).split("/"):
            assert word.startswith("--") and word[2:] in flag_names(), name
    assert (flag_of("k"), flag_of("seed"), flag_of("text_columns")) == ("--drop_k", "--seed", "--text_columns")
    assert flag_of("files") == "--train_file/--validation_file/--train_split/--validation_split"
    assert (flag_of("processes"), flag_of("source")) == ("torchrun --nproc_per_node", "source of the data")


# ---- properties
WORDS = st.text("abcxyz0123456789_./- ,", min_size=1, max_size=8).filter(str.strip)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**32 - 1),
        "learning_rate": st.floats(0, 1),
        "num_train_epochs": st.floats(0.01, 50) | st.integers(1, 9),
        "weight_decay": st.floats(0, 1),
        "tokenizer_name": WORDS,
        "run_name": WORDS,
        "max_train_samples": st.none() | st.integers(1, 9),
        "freeze_embeddings": st.booleans(),
        "bf16": st.booleans(),
        "do_eval": st.booleans(),
        "drop_layers": st.lists(st.integers(0, 11), min_size=1, unique=True),
        "lr_scheduler_kwargs": st.fixed_dictionaries({"num_cycles": st.integers(1, 3)}),
        "include_for_metrics": st.lists(st.sampled_from(["inputs", "loss"]), min_size=1, unique=True),
    },
)


@given(SETTINGS)
@settings(derandomize=True, deadline=None, max_examples=30)
def test_a_file_says_what_flags_say(tmp_path_factory, values):
    values = values | {"do_train": True, "use_cpu": True, "report_to": "none", "lr_scheduler_type": "cosine"}
    words = []
    for name, value in values.items():
        if name == "include_for_metrics":
            words += [f"--{name}", *value]
        elif value is not None:
            text = ",".join(map(str, value)) if isinstance(value, list) else value
            words.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else text}")
    by_flags = parse(words).to_spec()
    for suffix, dump in ((".yaml", yaml.safe_dump), (".json", json.dumps)):
        path = tmp_path_factory.mktemp("settings") / f"x{suffix}"
        path.write_text(dump(values))
        assert parse([str(path)]).to_spec() == by_flags
    run = by_flags[0]
    assert run.seed == values.get("seed", 42) and run.train.learning_rate == values.get("learning_rate", 2e-5)
    assert RunSpec.from_dict(json.loads(json.dumps(run.to_dict()))) == run


IDS = st.lists(st.integers(0, 30), max_size=4, unique=True).map(tuple)
MAYBE = st.none() | st.integers(0, 99)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
SPECS = st.builds(
    RunSpec,
    st.builds(ModelSpec, WORDS, WORDS, st.none() | WORDS, st.booleans()),
    st.builds(
        DataSpec,
        *(WORDS, WORDS, st.lists(st.tuples(WORDS, WORDS), max_size=2).map(tuple), st.lists(WORDS).map(tuple), WORDS),
        *(WORDS, st.none() | WORDS, st.booleans(), st.integers(2, 512), st.booleans(), MAYBE, MAYBE),
    ),
    st.builds(DropSpec, st.none() | WORDS, MAYBE, st.none() | st.floats(-1, 1), IDS, IDS, st.none() | WORDS),
    st.builds(WhenSpec, st.none() | st.just(True), MAYBE, MAYBE),
    st.none()
    | st.builds(
        TrainSpec,
        num_train_epochs=st.floats(0, 9),
        data_seed=MAYBE,
        freeze_layers=IDS,
        other=st.dictionaries(
            WORDS, VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(WORDS, VALUES), max_size=3
        ),
    ),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["fp32", "bf16", "fp16"]),
    st.integers(1, 8),
    st.booleans(),
)


@given(SPECS)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_a_spec_survives_json(run):
    again = RunSpec.from_dict(json.loads(json.dumps(run.to_dict())))
    assert again == run and again.id == run.id


@given(SPECS, st.data())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_every_field_is_part_of_the_id(run, data):
    part = data.draw(st.sampled_from(["model", "data", "drop", "when", "train", None]))
    of = getattr(run, part) if part else run
    if of is None:
        return
    names = [f.name for f in dataclasses.fields(of) if part or f.name not in ("model", "data", "drop", "when", "train")]
    name = data.draw(st.sampled_from(names))
    old = getattr(of, name)
    kinds = {
        bool: not old,
        int: 1 + (old if isinstance(old, int) else 0),
        str: f"{old}x",
        tuple: (99,),
        dict: {"new": 1},
    }
    new = kinds.get(type(old), 0.5 if old is None or isinstance(old, float) and old != 0.5 else 0.25)
    changed = dataclasses.replace(of, **{name: new})
    other = dataclasses.replace(run, **{part: changed}) if part else changed
    assert other.id != run.id, name


def test_a_flag_without_effect_does_not_identify_a_run():
    without = {name for name, text in LIBRARY_HELP.items() if text.startswith("No effect")}
    assert len(without) > 8 and without <= {*NO_EFFECT}


@pytest.mark.parametrize(("words", "noted"), [("", True), ("--do_train --do_eval --do_predict", False)])
def test_a_test_file_without_predictions_is_noted(words, noted):
    notes = asked(f"--train_file a.csv --validation_file b.csv --test_file c.csv {words}")[1].notes
    assert ("--test_file has no effect without --do_predict" in notes) == noted


def test_a_list_is_no_number():
    with pytest.raises(UserError, match="^'num_train_epochs' takes one value. To vary it, use the 'grid' of a study.$"):
        flags_of({"num_train_epochs": [8, 9]})
    for name in ("per_device_train_batch_size", "max-steps"):
        with pytest.raises(UserError, match=f"^r.yaml: '{name}' takes one value"):
            flags_of({name: [8, 9]}, "r.yaml: ")
    assert flags_of({"seed": [42]}) == ["--seed=42"]
    assert flags_of({"drop_layers": [1, 2], "elastic_k": [2, 4]}) == ["--drop_layers=1,2", "--elastic_k", "2", "4"]
