"""Every check of a flag that needs no model and no data."""

import os

from layerdrop.arguments.whole import Arguments
from layerdrop.errors import UserError
from layerdrop.scorers import SCORERS
from layerdrop.strategies import STRATEGIES, get_strategy


def check(arguments: Arguments) -> None:
    """Raise one UserError that names everything that is wrong with the flags, one line each."""
    problems = []
    for one in (_check_drop, _check_data, _check_train):
        try:
            problems += one(arguments)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))


def _check_drop(arguments: Arguments) -> list[str]:
    drop, wrong = arguments.drop, []
    if drop.drop_layers is not None and not arguments.drop_layers:
        return ["--drop_layers: names no layer. Write ids as 9,10,11, or leave the flag out to drop none."]
    if arguments.drop_layers:
        if drop.drop_strategy not in (None, "list"):
            return [f"--drop_layers and --drop_strategy {drop.drop_strategy} both choose layers. Give one of them."]
        drop.drop_strategy = "list"
    if drop.drop_strategy is None:
        for name in ("drop_k", "drop_threshold", "drop_order_file", "score_on"):
            if getattr(drop, name) not in (None, 0):
                wrong.append(f"--{name} needs a strategy. Choose --drop_strategy: {', '.join(STRATEGIES)}.")
        return wrong + _check_freeze(arguments)
    row = get_strategy(drop.drop_strategy)
    if row.listed:
        if not arguments.drop_layers:
            wrong.append("--drop_strategy list: needs the ids. Add --drop_layers 9,10,11.")
        if drop.drop_k not in (None, len(arguments.drop_layers)):
            wrong.append(
                f"--drop_k {drop.drop_k}: --drop_layers names {len(arguments.drop_layers)} layers. Leave --drop_k out."
            )
    elif drop.drop_k is None and drop.drop_threshold is None:
        also = " or --drop_threshold X" if row.threshold else ""
        wrong.append(f"--drop_strategy {row.name}: how many layers? Add --drop_k N{also}.")
    if drop.drop_k is not None and drop.drop_k < 0:
        wrong.append(f"--drop_k {drop.drop_k}: a number of layers. Choose 0 or more.")
    if drop.drop_threshold is not None:
        if not row.threshold:
            wrong.append(f"--drop_threshold: only for --drop_strategy contribution, not {row.name}. Use --drop_k.")
        elif drop.drop_k is not None:
            wrong.append("--drop_k and --drop_threshold both say how many layers. Give one of them.")
        elif not -1 <= drop.drop_threshold <= 1:
            wrong.append(
                f"--drop_threshold {drop.drop_threshold}: a cosine similarity. Choose -1 to 1 "
                "(the paper's: 0.95, 0.925, 0.9)."
            )
    if drop.drop_order_file and not row.order:
        wrong.append(f"--drop_order_file: only for greedy and optimal, not {row.name}. Leave it out.")
    if drop.score_on and not row.scorer:
        wrong.append(f"--score_on: {row.name} has no scores. It goes with {', '.join(SCORERS)}.")
    return wrong + _check_freeze(arguments)


def idle_flags(arguments: Arguments) -> list[str]:
    """A note for each flag about scores that was given and that the strategy does not look at."""
    row = get_strategy(arguments.drop.drop_strategy) if arguments.drop.drop_strategy else None
    scorer = SCORERS[row.scorer] if row and row.scorer else None
    used = () if scorer is None else ("score_split", "max_score_samples") if scorer.needs_data else ("weight_scope",)
    given = [name for name in ("score_split", "max_score_samples", "weight_scope") if name in arguments.given]
    chosen = f"--drop_strategy {row.name}" if row else "a run without --drop_strategy"
    return [f"--{name} has no effect on {chosen}" for name in given if name not in used]


def _check_freeze(arguments: Arguments) -> list[str]:
    return [f"--freeze_layers: {i} is no layer id. Ids count from 0." for i in arguments.freeze_layers if i < 0]


def _check_data(arguments: Arguments) -> list[str]:
    data, wrong = arguments.data, []
    own = data.own_files
    try:
        data.task  # noqa: B018  raises for an unknown name
    except UserError as error:
        wrong.append(str(error))
    if own and data.data_dir:
        wrong.append("--data_dir and --train_file/--validation_file/--test_file both say where the data is. Give one.")
    if own:
        for split in arguments.splits:
            if split not in dict(own.files):
                steps = {"train": "--do_train", "validation": "--do_eval", "test": "--do_predict"}
                wrong.append(
                    f"--{split}_file is missing: {steps[split]} or --score_split {split} needs it "
                    "(without any --do_* flag, training and evaluation are on)."
                )
    for name, least in (
        ("max_seq_length", 2),
        ("max_train_samples", 1),
        ("max_eval_samples", 1),
        ("max_predict_samples", 1),
    ):
        value = getattr(data, name)
        if value is not None and value < least:
            wrong.append(f"--{name} {value}: must be {least} or more.")
    return wrong


def _check_train(arguments: Arguments) -> list[str]:
    train, wrong = arguments.train, []
    if not (train.do_train or train.do_eval or train.do_predict or arguments.drop.dry_run):
        wrong.append("nothing to do: --do_train, --do_eval and --do_predict are all off. Turn one on.")
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        if getattr(train, name) < 1:
            wrong.append(f"--{name} {getattr(train, name)}: must be 1 or more.")
    if not 0 <= train.learning_rate < float("inf"):
        wrong.append(f"--learning_rate {train.learning_rate}: must be a number that is not negative.")
    for name in ("seed", "data_seed"):
        if not 0 <= (getattr(train, name) or 0) < 2**32:
            wrong.append(f"--{name} {getattr(train, name)}: must be from 0 to {2**32 - 1}.")
    best = train.metric_for_best_model
    task = arguments.data.task if best else None
    if task and not any(best.endswith(name) for name in ("loss", *task.metrics)):
        wrong.append(f"--metric_for_best_model {best}: {task.name} has {', '.join(('loss', *task.metrics))}.")
    if train.num_train_epochs <= 0 and train.max_steps <= 0:
        wrong.append(f"--num_train_epochs {train.num_train_epochs}: must be above 0. To evaluate alone use --do_eval.")
    name = arguments.model.model_name_or_path
    if train.output_dir and os.path.isdir(name) and os.path.realpath(name) == os.path.realpath(train.output_dir):
        wrong.append(f"--output_dir {train.output_dir}: is the checkpoint's own folder. Choose another --output_dir.")
    if train.resume_from_checkpoint and train.overwrite_output_dir:
        wrong.append("--resume_from_checkpoint and --overwrite_output_dir contradict each other. Give one of them.")
    if arguments.drop.json and not arguments.drop.dry_run:
        wrong.append("--json goes with --dry_run; a run's own JSON is record.json in its folder.")
    return wrong
