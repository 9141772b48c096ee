#!/usr/bin/env python
"""Drop layers of a pre-trained encoder, fine-tune it on a GLUE task, and record what that did: one run, top to bottom.

    python run_glue.py --drop_strategy top --drop_k 6
    torchrun --nproc_per_node 2 run_glue.py --task_name rte --drop_strategy symmetric --drop_k 4

All flags: --help. What the words mean: README.md.
"""

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

RANK = int(os.environ.get("RANK", "0"))


def main(argv: list[str]) -> int:
    """The exit code: 0 done, 1 failed, 2 unusable input, 130 stopped by the user."""
    try:
        from layerdrop.errors import UserError

        try:
            from layerdrop.arguments import parse
            from layerdrop.runs import summary

            arguments = parse(argv)
            record = run(arguments)
            if RANK == 0:
                print(json.dumps(record.to_dict(), indent=1) if arguments.drop.json else summary(record))
            return 1 if record.status == "failed" else 0
        except UserError as error:
            say("\n".join(f"error: {line}" for line in str(error).splitlines()))
            return 2
    except KeyboardInterrupt as stop:
        checkpoint = getattr(stop, "checkpoint", None)
        say(f"stopped; go on with --resume_from_checkpoint (from {checkpoint})" if checkpoint else "stopped")
        return 130


def run(arguments):
    """Do what the flags (layerdrop.arguments.Arguments) say. Returns the RunRecord that is in the run's folder, also of
    a failure; what is already done there is not done again. Raises UserError, and KeyboardInterrupt when stopped."""
    from transformers import set_seed

    from layerdrop import surgery
    from layerdrop.checkpoints import fingerprint, load_config, load_tokenizer, work_offline_unless_reachable
    from layerdrop.data import read_splits, tokenise
    from layerdrop.distributed import finish, from_first_process
    from layerdrop.errors import UserError
    from layerdrop.runs import (
        RunRecord,
        environment,
        forget_peak_memory,
        holds_model,
        leave_folder,
        open_folder,
        peak_memory,
        read_record,
        remove_checkpoints,
        write_predictions,
        write_submission,
    )
    from layerdrop.selection import check_selection, find_order, select_layers
    from layerdrop.tasks import label_order

    model_flags, data_flags, drop_flags, train_flags = arguments.model, arguments.data, arguments.drop, arguments.train
    name, hub, folder = model_flags.model_name_or_path, model_flags.hub, train_flags.output_dir
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    forget_peak_memory()
    if arguments.needs_hub and not work_offline_unless_reachable():
        arguments.notes.append("no hub can be reached; what is in the local cache is used")
        if train_flags.push_to_hub:
            raise UserError("--push_to_hub: no hub can be reached. Leave it out, and push the run's folder later.")

    # ---- load: configuration, tokenizer and examples; the weights wait until it is known which are needed --------
    with clock(seconds, "load"):
        config = load_config(name, hub)
        n_original, original_ids = surgery.original_layers(config)
        family = surgery.family_of(config)
        other = model_flags.tokenizer_name
        tokenizer = load_tokenizer(other, hub.elsewhere()) if other else load_tokenizer(name, hub)
    with clock(seconds, "read"):
        task, examples = read_splits(
            data_flags.task,
            arguments.splits,
            data_dir=data_flags.data_dir,
            own=data_flags.own_files,
            known_labels=surgery.label_names(config),
            skip_bad_rows=data_flags.skip_bad_rows,
            cache_dir=model_flags.cache_dir,
            token=model_flags.token,
        )
        for split in examples:
            examples[split] = examples[split].head(arguments.max_samples(split))
    spec = arguments.spec(task.name, find_order(drop_flags.drop_strategy, drop_flags.drop_order_file, name, task.name))
    check_selection(spec, config)
    record = RunRecord(spec, folder, n_layers=n_original, notes=list(arguments.notes))
    record.model_fingerprint = fingerprint(name, config)
    for split, rows in examples.items():
        record.data[split] = {"rows": len(rows), "bad_rows": rows.bad_rows, "fingerprint": rows.fingerprint()}
        if rows.bad_rows:
            record.notes.append(f"{rows.bad_rows} malformed rows of {split} left out")
    length = min(spec.max_seq_length, surgery.max_length(config, tokenizer))
    if length < spec.max_seq_length:
        record.notes.append(f"--max_seq_length {spec.max_seq_length}: the model takes {length} tokens at most")
    resume_from = None
    if not drop_flags.dry_run:
        overwrite, resume = train_flags.overwrite_output_dir, train_flags.resume_from_checkpoint
        done, resume_from = from_first_process(lambda: open_folder(record, overwrite=overwrite, resume=resume))
        if done:
            kept = "" if not train_flags.save_model or holds_model(folder) else ", but its model was not kept"
            say(f"note: already done with these settings{kept}; run it again with --overwrite_output_dir")
            return RunRecord.from_dict(read_record(folder))

    try:
        record.environment = environment(train_flags.use_cpu)
        if resume_from:
            record.notes.append(f"resumed from {resume_from}: seconds and the first loss are of what came after")

        # ---- select: which layers to drop, in the checkpoint's own numbering -------------------------------------
        with clock(seconds, "select"):
            scored = examples.get(task.splits(drop_flags.score_split)[0])
            selection = from_first_process(
                lambda: select_layers(spec, config.num_hidden_layers, hub, scored, tokenizer, train_flags)
            )
        kept = surgery.kept_layers(config, selection.dropped)
        frozen = surgery.positions("--freeze_layers", kept, spec.freeze_layers)
        record.scores = selection.scores
        record.kept = [original_ids[i] for i in kept]
        record.dropped = [i for i in range(n_original) if i not in record.kept]
        record.dropped_before = [i for i in range(n_original) if i not in original_ids]
        if record.dropped_before:
            record.notes.append(f"the checkpoint had {config.num_hidden_layers} of {n_original} layers left already")
        if family.shared and selection.dropped:
            record.notes.append(
                f"{family.name} shares one layer: all strategies coincide, "
                "the depth alone changes, and no parameter is saved"
            )
        task_ids = label_order(task, surgery.label_names(config))
        if task_ids is not None:
            order = ", ".join(task.labels[i] for i in task_ids)
            record.notes.append(f"the checkpoint's own order of labels is used: {order}")
        surgery.set_labels(config, [task.labels[i] for i in task_ids] if task_ids else task.labels)
        reduced = surgery.reduced_config(config, selection.dropped)
        record.parameters_before, record.parameters_after = (
            surgery.count_parameters(surgery.empty_model(c, hub.trust_remote_code)) for c in (config, reduced)
        )
        if drop_flags.dry_run:
            record.status, record.seconds = "dry_run", seconds
            tell(record.notes)
            return record

        # ---- drop: read the kept layers only; seeded, so that the head is the same whatever was dropped ----------
        with clock(seconds, "load"):
            set_seed(spec.seed)
            if spec.from_scratch:
                model, new = surgery.random_classifier(config, selection.dropped, hub.trust_remote_code), []
            else:
                model, new = surgery.load_classifier(name, selection.dropped, config, hub)
        if new and not train_flags.do_train:
            record.notes.append(f"untrained and not in the checkpoint, so the figures say little: {', '.join(new)}")
        tell(record.notes)

        # ---- fine-tune and evaluate ------------------------------------------------------------------------------
        from layerdrop.finetune import finetune, freeze

        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        freeze(model, frozen, spec.freeze_embeddings)
        with clock(seconds, "tokenise"):
            to_model = None if task_ids is None else np.argsort(task_ids)
            datasets = {
                split: tokenise(
                    rows, tokenizer, length, None if to_model is None or rows.labels is None else to_model[rows.labels]
                )
                for split, rows in examples.items()
            }
        outcome = finetune(
            model,
            task,
            tokenizer,
            train_flags,
            train=datasets["train"] if train_flags.do_train else None,
            evaluate={split: datasets[split] for split in task.splits("validation") if train_flags.do_eval},
            predict={split: datasets[split] for split in task.splits("test") if train_flags.do_predict},
            task_ids=None if task_ids is None else np.array(task_ids),
            max_length=length,
            pad_to_max_length=spec.pad_to_max_length,
            rolling_checkpoints=arguments.rolling_checkpoints,
            resume_from=resume_from,
        )

        # ---- record ----------------------------------------------------------------------------------------------
        record.metrics, record.epochs = outcome.metrics, outcome.epochs
        record.tokens_per_second, record.padding_share = outcome.tokens_per_second, outcome.padding_share
        seconds |= outcome.seconds
        record.distinct_predictions = {split: len(np.unique(some)) for split, some in outcome.predictions.items()}
        if RANK == 0:
            for split, predictions in outcome.predictions.items():
                write = write_submission if split.startswith("test") else write_predictions
                write(folder, task, split, examples[split], predictions)
            if arguments.rolling_checkpoints:
                remove_checkpoints(folder)
        record.status = "success"
    except KeyboardInterrupt as stop:
        record.status, record.error = "cancelled", str(stop) or "stopped by the user"
        raise
    except UserError:
        record = None
        raise
    except Exception as error:
        record.status, record.error = "failed", f"{type(error).__name__}: {error}"
        if not isinstance(error, FloatingPointError):
            traceback.print_exc()
        say(f"error: {record.error}")
    finally:
        if RANK == 0 and not drop_flags.dry_run and record is None:
            leave_folder(folder)
        elif RANK == 0 and not drop_flags.dry_run:
            record.seconds = {**seconds, "total": time.perf_counter() - started}
            record.peak_memory_bytes = peak_memory()
            record.write()
    finish()
    return record


@contextmanager
def clock(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the seconds that the block takes to `seconds[stage]`."""
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start


def tell(notes: list[str]) -> None:
    """What the user should know about this run, before it takes its time."""
    for note in notes:
        say(f"note: {note}")


def say(text: str) -> None:
    """A line for the person at the terminal, from the first process."""
    if RANK == 0:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    gc.disable()  # until all is imported, which stays: to look through it for garbage takes a second or two
    code = main(sys.argv[1:])
    gc.freeze()
    sys.exit(code)
