"""The command that does a run again."""

import shlex

import pytest

from layerdrop.cli.parsing import parse
from layerdrop.runs.command import command_of

TOP = "--task_name rte --drop_strategy top --drop_k 2"


@pytest.mark.parametrize(
    "words",
    [
        *("--task_name rte", TOP, "--drop_layers 1,5", "--task_name demo-stsb --model_name_or_path demo", "--do_eval"),
        f"{TOP} --data_dir glue --max_seq_length 64 --max_train_samples 9 --seed 7 --pad_to_max_length",
        f"{TOP} --learning_rate 1e-4 --num_train_epochs 2.5 --warmup_steps 0.1 --optim adafactor --weight_decay 0.01",
        "--drop_strategy contribution --drop_threshold 0.95 --score_split train --max_score_samples 9 --score_on x",
        "--drop_strategy variance --drop_k 3 --weight_scope layer --freeze_layers 0,1 --freeze_embeddings",
        f"{TOP} --hold_out 0.15 --no_speedups --precision fp32 --label_smoothing_factor 0.1 --dataloader_drop_last",
        f"{TOP} --drop_when finetuned --freeze_dropped --start_num_train_epochs 2 --start_learning_rate 1e-3",
        f"{TOP} --drop_when after --layerdrop_rate 0.2",
        f"{TOP} --drop_when elastic",
        f"{TOP} --drop_when elastic --elastic_k 2 4 --finetune_again --start_num_train_epochs 2",
        "--task_name rte --drop_when elastic --elastic_k 2 4",
        f"{TOP} --drop_when gradual --drop_step 2 --drop_every_epochs 3",
        f"{TOP} --drop_when finetuned --theseus --replacing_rate 0.3 --replacing_steps 50",
        f"{TOP} --teacher auto --distill layers --distill_attention --distill_weight 0.7",
        f"{TOP} --teacher some/folder --distill_temperature 3 --from_scratch",
        "--train_file a.csv --validation_file b.csv --text_columns x,y --label_column grade --label_type number",
        "--task_name rte --train_file a.csv --validation_file b.csv",
        "--train_file a.csv --validation_share 0.1",
        "--dataset_name a/b --dataset_config_name c --train_split train[:90%] --validation_split dev",
        "--dataset_name a/b --validation_share 0.1 --task_name rte --text_columns x,y",
        f'{TOP} --lr_scheduler_type cosine --lr_scheduler_kwargs {{"num_cycles":2}}',
        f"{TOP} --tokenizer_name t --model_revision v",
        "--drop_strategy random --drop_k 3 --task_name rte",
    ],
)
def test_it_is_the_same_run(words):
    spec, _ = parse(["--use_cpu", *words.split()]).to_spec()
    said = shlex.split(command_of(spec))
    assert said[:2] == ["layerdrop", "run"]
    again, _ = parse(["--use_cpu", *said[2:]]).to_spec()
    assert again == spec and again.id == spec.id, said


@pytest.mark.parametrize("when", ["", "--drop_when gradual"])
@pytest.mark.parametrize("strategy", ["greedy", "shortlist"])
def test_what_a_search_found_is_named_in_its_order(tmp_path, strategy, when):
    """It is the same run: gradual dropping goes by the order."""
    (tmp_path / "order.txt").write_text("5\n2\n7\n")
    words = f"--task_name rte --drop_strategy {strategy} --drop_k 2 {when} --use_cpu"
    spec, _ = parse([*words.split(), "--drop_order_file", f"{tmp_path}/order.txt"]).to_spec()
    said = command_of(spec)
    assert ("--drop_order 5,2" if when else "--drop_order 2,5") in said and f"--drop_strategy {strategy}" in said
    again, _ = parse(["--use_cpu", *shlex.split(said)[2:]]).to_spec()
    assert again == spec and again.drop.found == ((5, 2) if when else (2, 5))
