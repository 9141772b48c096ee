"""The steps of one run, in the order of run_glue.run: read, select, load, fine-tune, evaluate, predict, record."""

import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import set_seed

from layerdrop.architectures import ModelSpec
from layerdrop.checkpoints import POSITIVE_KEY, Checkpoint
from layerdrop.criteria.selection import Selection, check_selection, must_search, select_layers, split_to_score
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.batches import Collator
from layerdrop.data.metrics import f1_by_class
from layerdrop.data.read import read_splits
from layerdrop.data.tasks import Task, label_order, pairs_by_order
from layerdrop.data.tokens import Tokenised, tokenise
from layerdrop.errors import UserError
from layerdrop.finetune.evaluate import Evaluation
from layerdrop.finetune.precision import check_precision
from layerdrop.finetune.settings import check_checkpointing, training_arguments
from layerdrop.finetune.spec import WhenSpec
from layerdrop.finetune.speedups import speedups
from layerdrop.finetune.trainer import Development, prefix
from layerdrop.loading import load_classifier, number_of_parameters, quiet, random_classifier
from layerdrop.runs.environment import environment, peak_memory, reset_peak_memory
from layerdrop.runs.inputs import Inputs, needed_splits
from layerdrop.runs.predictions import prediction_range, predictions_file, write_predictions
from layerdrop.runs.prerequisites import Prerequisites
from layerdrop.runs.record import Clock, Cut, RunRecord
from layerdrop.runs.results import CARD_FILE, result_files
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.status import MODEL
from layerdrop.runs.store import (
    SCORE_FOLDER,
    FolderState,
    find_record,
    lock_folder,
    note_inputs,
    open_folder,
    prior_store,
    remove_checkpoints,
)
from layerdrop.runs.training_step import fine_tune, note_drops
from layerdrop.surgery import droppable, kept_layers
from layerdrop.sweeps.engines.base import Run
from layerdrop.system.distributed import finish, from_first_process, is_first, world_size
from layerdrop.system.own_files import OwnFiles
from layerdrop.system.process import busy_note, collect_from_now_on

MULTIPLE = 8
"""On a GPU: batches are padded to a multiple of this. Each length is recorded once (finetune.speedups.capture)."""


class GlueRun:
    """One run, step by step; each step leaves its results in the record."""

    def __init__(self, spec: RunSpec, options: Options, run: Run | None = None):
        """run: executes the runs that this one needs first."""
        self.spec, self.options, self.run, self.clock = spec, options, run, Clock()
        self.args = training_arguments(spec, options)
        self.record = RunRecord(spec, options.folder, notes=list(options.notes))
        self.evaluations: dict[str, Evaluation] = {}
        """Split -> the final model's evaluation."""
        reset_peak_memory()

    def read(self, dry_run: bool = False, scored: str | None = None) -> None:
        """Open the checkpoint, whose weights wait until the choice of layers, and read the splits that are needed.

        scored: a split that `choose` will score for strategies other than the run's own.
        """
        spec, options = self.spec, self.options
        with self.clock("load"):
            self.checkpoint = checkpoint = Checkpoint.open(spec.model, options.hub)
            self.inputs = Inputs()
            self.prerequisites = Prerequisites(spec, options, self.run, self.inputs)
        check_precision(spec.precision, checkpoint.config)
        check_checkpointing(self.args, checkpoint.config)
        if must_search(spec.drop):
            self._check_search(dry_run)
        check_selection(spec, checkpoint.config)
        with self.clock("read"):
            self.data = read_splits(
                spec.data,
                self._needed_splits(dry_run, scored),
                known_labels=checkpoint.label_names,
                regression=checkpoint.is_regression,
                known_positive=checkpoint.positive_label,
                test_file=options.test_file,
                max_predict_samples=options.max_predict_samples,
                cache_dir=options.cache_dir,
                token=options.token,
            )
        self.task = self.data.task
        self.length = min(spec.data.max_seq_length, checkpoint.max_length())
        multiple = 1 if self.args.device.type == "cpu" else MULTIPLE
        self.collate = Collator.of(checkpoint.tokenizer, self.length, spec.data.pad_to_max_length, multiple)
        order = label_order(self.task, checkpoint.label_names)
        self.task_ids = None if order is None else np.array(order)
        """(classes,) the task's class id for each of the checkpoint's, where that has an order of its own."""
        names = self.task.labels
        self.labels = list(names) if order is None else [names[i] for i in order]
        """Class names in the checkpoint's order; empty for regression."""
        self._describe()

    def _check_search(self, dry_run: bool) -> None:
        """Raise UserError where this run cannot search."""
        strategy, spec = f"--drop_strategy {self.spec.drop.strategy}", self.spec
        instead = "Search with layerdrop search, and give its result with --drop_order_file."
        if dry_run or spec.train is None:
            raise UserError(f"{strategy}: finds its layers by trainings, and this run does not train. {instead}")
        if spec.processes > 1:
            raise UserError(f"{strategy}: searches in one process, not in {spec.processes}. {instead}")
        if spec.data.hold_out:
            raise UserError(f"{strategy}: chooses by held-out rows, which --hold_out would report on. Leave it out.")

    def _needed_splits(self, dry_run: bool, scored: str | None) -> list[str]:
        spec = self.spec
        needed = set(needed_splits(spec, self.options))
        if dry_run:  # own files say how many classes there are
            needed = {split for split, _ in spec.data.files[:1]} | {split_to_score(spec.drop)}
        return [split for split in ("train", "validation", "test") if split in needed | {scored}]

    def _describe(self) -> None:
        """The record as far as the inputs say it."""
        record, checkpoint, data = self.record, self.checkpoint, self.data
        record.n_layers = checkpoint.n_original
        record.labels, record.text_columns = list(self.task.labels), list(self.task.texts)
        record.positive_label = self.task.positive_label
        for split, rows in data.examples.items():
            record.data[split] = {"rows": len(rows), "bad_rows": rows.bad_rows, "fingerprint": rows.fingerprint()}
        self.inputs.know(self.spec, self.options, record.data)
        record.fingerprints = self.inputs.models(self.spec, self.options)
        record.dropped_before = [i for i in range(checkpoint.n_original) if i not in checkpoint.original_ids]
        notes = [*data.notes, *checkpoint.notes]
        if record.dropped_before:
            notes.append(f"the checkpoint had {checkpoint.n_layers} of {checkpoint.n_original} layers left already")
        if self.length < (asked := self.spec.data.max_seq_length):
            notes.append(f"--max_seq_length {asked}: the model takes {self.length} tokens at most")
        if self.task_ids is not None:
            notes.append(f"the checkpoint's own order of labels is used: {', '.join(self.labels)}")
        notes += _notes_on_classes(self.task, checkpoint, self.prerequisites.teacher)
        if self.spec.train and self.spec.train.label_smoothing_factor and self.task.is_regression:
            notes.append(f"--label_smoothing_factor has no effect on {self.task.name}, whose labels are values")
        if busy := busy_note():
            notes.append(busy)
        record.notes += notes

    @contextmanager
    def in_folder(self) -> Iterator[FolderState]:
        """Keep other processes out of the run's folder, and see what is there."""
        with ExitStack() as stack:
            from_first_process(lambda: stack.enter_context(lock_folder(self.options.folder)))
            opened = from_first_process(lambda: open_folder(self.record, self.options))
            self.record.notes += opened.notes
            yield opened

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Write the record at the end of the block, however it ends. A failure is recorded and goes no further."""
        record, write = self.record, is_first()
        try:
            yield
            finish()
            record.status = "success"
        except KeyboardInterrupt as stop:
            record.status, record.error = "cancelled", str(stop) or "stopped by the user"
            raise
        except UserError:
            write = False
            raise
        except Exception as error:
            record.status, record.error = "failed", f"{type(error).__name__}: {error}"
            if not isinstance(error, FloatingPointError):
                traceback.print_exc()
            print(f"error: {record.error}", file=sys.stderr)
            write = world_size() == 1 or not self._has_failed_elsewhere()
        finally:
            if write:
                record.seconds, record.peak_memory_bytes = self.clock.total(), peak_memory()
                record.write()
                if record.status == "success":
                    self._write_beside()

    def _write_beside(self, names: Iterable[str] | None = None) -> None:
        """Write the files for other tools: results under the library's names, the list of layers, the model's card.

        names: the files to write; None: all.
        """
        files = result_files(self.record)
        if self.options.save_model:
            from layerdrop.runs.card import card, push_card

            files[CARD_FILE] = str(card(self.record))
        own = OwnFiles(self.record.folder)
        own.write({name: text for name, text in files.items() if names is None or name in names})
        own.settle()
        if self.args.push_to_hub and CARD_FILE in files:
            push_card(self.record, self.args.hub_model_id, self.args.hub_token)

    def _has_failed_elsewhere(self) -> bool:
        """Whether another process of this run has recorded its failure, of which this process's is a consequence."""
        there = find_record(self.record.folder, self.spec)
        return there is not None and there.status == "failed"

    def do_first(self) -> None:
        """Do the runs whose trained models this one needs, where they are missing."""
        if self.spec.prerequisites:
            with self.clock("first"):
                self.prerequisites.do()
            self.record.first = self.prerequisites.cost
            self.record.fingerprints |= self.inputs.models(self.spec, self.options)
            from_first_process(lambda: note_inputs(self.record))

    def select(self) -> None:
        """Choose the layers to drop."""
        spec, checkpoint, record = self.spec, self.checkpoint, self.record
        record.environment = environment(self.args.device.type == "cpu")
        drop = spec.drop
        if must_search(drop):
            with self.clock("search"):
                drop = replace(drop, found=self._search())  # in its order
        with self.clock("select"):
            self.selection = selection = from_first_process(lambda: self.choose(drop))
        why = selection.why + (", frozen" if spec.when.frozen else "")
        record.cuts = [self.cut(0, self.dropped, why, selection.scores)]
        record.fingerprints |= selection.fingerprints
        if selection.head:
            record.notes.append(f"scores are seen through {selection.head}")
        record.parameters_before = number_of_parameters(checkpoint, labels=self.labels)
        last = [] if spec.when.frozen else selection.dropped
        record.parameters_after = number_of_parameters(checkpoint, last, labels=self.labels)
        if checkpoint.family.shared and selection.dropped:
            record.notes.append(
                f"{checkpoint.family.name} shares one layer: all strategies coincide, "
                "the depth alone changes, and no parameter is saved"
            )

    def choose(self, drop: DropSpec) -> Selection:
        """Select the layers that a strategy drops from the checkpoint, scored on this run's rows. Raises UserError."""
        scored = split_to_score(drop)
        return select_layers(
            drop,
            self.checkpoint,
            self.data.examples[self.data.splits(scored)[0]] if scored else None,
            self.task,
            seed=self.spec.seed,
            max_seq_length=self.spec.data.max_seq_length,
            device=self.args.device,
            batch_size=self.args.per_device_eval_batch_size,
            score_store=self.options.score_store,
        )

    def plan(self) -> None:
        """Add the planned cuts of gradual dropping to the record of a dry run."""
        note_drops(self)

    @property
    def dropped(self) -> list[int]:
        """The layers that the model lacks before training, in the checkpoint's numbering."""
        return [] if self.spec.when.frozen or self.spec.when.every_epochs else self.selection.dropped

    def cut(self, step: int, dropped: Sequence[int], why: str, scores: list[float] | None = None) -> Cut:
        """dropped: in the checkpoint's numbering."""
        checkpoint = self.checkpoint
        kept = [checkpoint.original_ids[i] for i in kept_layers(checkpoint.config, dropped)]
        return Cut(step, [i for i in range(checkpoint.n_original) if i not in kept], kept, why, scores)

    def _search(self) -> tuple[int, ...]:
        """The layers that a search finds on a held-out part of the training set."""
        from layerdrop.search.run import HOLD_OUT, candidate_options, search_inside

        spec, options = self.spec, self.options
        files = tuple((split, path) for split, path in spec.data.files if split == "train")
        data = replace(spec.data, hold_out=HOLD_OUT, files=files)
        unset = {"start": None, "distil": None, "theseus": None}
        plain = replace(spec, drop=DropSpec(), when=WhenSpec(), data=data, **unset)
        store, layers = prior_store(options).root, droppable(self.checkpoint.config)
        scores = options.score_store or str(Path(store) / SCORE_FOLDER)
        full_run = GlueRun(plain, replace(candidate_options(options), score_store=scores))
        full_run.read()
        found = search_inside(
            spec.drop.strategy, layers, spec.drop.k, full_run.record, full_run.choose, full_run.options, store, self.run
        )
        self.record.search = found.cost
        return found.order or tuple(found.sets[-1])

    def load(self) -> None:
        """Read the kept layers alone. The seed is set before, so that the head is the same whatever was dropped."""
        spec, checkpoint, dropped = self.spec, self.checkpoint, self.dropped
        with self.clock("load"):
            set_seed(spec.seed)
            if spec.start:
                start = self.prerequisites.open(spec.start)
                gone = self._gone_from(start)
                self.model, new = load_classifier(start, gone, labels=self.labels, replace_head=False)
            elif spec.model.from_scratch:
                self.model, new = random_classifier(checkpoint, dropped, labels=self.labels), []
            else:
                self.model, new = load_classifier(
                    checkpoint,
                    dropped,
                    labels=self.labels,
                    replace_head=spec.train is not None,
                    weights=self.selection.encoder_weights,
                )
        if spec.data.files:
            setattr(self.model.config, POSITIVE_KEY, self.task.positive_label)
        self.new_parameters = new
        self.selection.encoder_weights = None
        reset_peak_memory()
        if new and spec.train is None:
            names = ", ".join(new)
            self.record.notes.append(f"untrained and not in the checkpoint, so the figures say little: {names}")
        tell(self.record.notes)
        collect_from_now_on()

    def _gone_from(self, start: Checkpoint) -> list[int]:
        """The layers that this run drops from the model that it starts from, in that model's numbering."""
        there, kept = start.original_ids, self.record.kept
        if missing := [i for i in kept if i not in there]:
            raise UserError(f"{start.name}: lacks layer {', '.join(map(str, missing))}, which this run keeps.")
        return [position for position, i in enumerate(there) if i not in kept]

    def fine_tune(self, resume_from: str | None) -> None:
        """Train on the training set, and keep the model if that is asked for."""
        record = self.record
        if self.spec.train is None:
            self._save_untrained()
            return
        training = fine_tune(self, resume_from)
        self.evaluations = training.evaluations
        record.epochs, record.steps, record.resumed_at_step = training.epochs, training.steps, training.resumed_at_step
        record.tokens_per_second, record.padding_share = training.tokens_per_second, training.padding_share
        record.train_loss = training.train_loss
        self.clock.add("train", training.seconds)
        self.clock.add("evaluate", training.evaluate_seconds)

    def _save_untrained(self) -> None:
        """Keep the model of a run that does not train, if that is asked for: its layers may have gone."""
        if self.options.save_model and is_first():
            with quiet(), OwnFiles(self.options.folder).saving() as folder:
                self.model.save_pretrained(folder)
                self.checkpoint.tokenizer.save_pretrained(folder)

    def evaluate(self, splits: list[str]) -> None:
        """Metrics and predictions on the development set; the last evaluation of the training is not repeated."""
        self._measure([split for split in splits if split not in self.evaluations], "evaluate")
        for split in splits:
            found = self.evaluations[split].metrics
            self.record.metrics |= {f"{prefix(split)}{name}": value for name, value in found.items()}
            self._score_classes(split)
            self._keep_predictions(split)
        if splits:
            self.clock.seconds["inference"] = sum(self.evaluations[split].seconds for split in splits)

    def predict(self, splits: list[str]) -> None:
        """Predictions for the test set; then nothing is left to resume."""
        self._measure(splits, "predict")
        for split in splits:
            self._keep_predictions(split)
        if self.options.rolling_checkpoints and is_first():
            remove_checkpoints(self.options.folder)

    def complete(self, done: RunRecord, missing: Sequence[str]) -> RunRecord:
        """Add the requested outputs that a finished run lacks. missing: as in Status."""
        splits = [split for split in self.development_splits() if predictions_file(self.task, split) in missing]
        tests = [split for split in self.test_splits() if predictions_file(self.task, split) in missing]
        if not missing:
            say("note: already done with these settings; run it again with --overwrite_output_dir")
            return done
        say(f"note: already done with these settings; added: {', '.join(missing)}")
        seen = self.record.data
        if splits or tests or MODEL in missing:
            if self.spec.train:  # its layers are already chosen
                self.checkpoint = Checkpoint.open(ModelSpec(done.folder), self.checkpoint.hub)
                self.model, _ = load_classifier(self.checkpoint, labels=self.labels, replace_head=False)
            else:
                self.do_first()
                self.select()
                self.load()
                self._save_untrained()
        self.record = done
        self.evaluate(splits)
        self.predict(tests)
        done.data |= {split: seen[split] for split in splits + tests}
        done.seconds |= self.clock.only("evaluate", "inference", "predict")
        finish()
        if is_first():
            done.write()
            changed = OwnFiles(done.folder).clashes([CARD_FILE, *result_files(done)])
            self._write_beside({CARD_FILE, *result_files(done)} - set(changed) if splits else missing)
            for name in changed if splits else ():
                say(f"note: {name} was changed since the run wrote it, so it is kept unchanged")
        return done

    # ---- parts of steps
    def development_splits(self) -> list[str]:
        """`validation`; MNLI's two; none if no evaluation is asked for."""
        return self.data.splits("validation") if self.options.evaluate else []

    def test_splits(self) -> list[str]:
        """`test`; MNLI's two, and GLUE's diagnostic set where it was found; none if no prediction is asked for."""
        return self.data.splits("test") if self.options.predict else []

    def dataset(self, split: str) -> Tokenised:
        """A split, tokenised, with labels in the checkpoint's order."""
        examples, labels = self.data.examples[split], None
        if self.task_ids is not None and examples.labels is not None:
            labels = np.argsort(self.task_ids)[examples.labels]
        return tokenise(examples, self.checkpoint.tokenizer, self.length, labels, self.checkpoint.embeddings)

    def development(self, splits: list[str]) -> Development:
        """Some splits, and how to evaluate on them."""
        datasets = {split: self.dataset(split) for split in splits}
        size = self.args.per_device_eval_batch_size
        return Development(self.task, datasets, self.collate, size, self.spec.precision, self.task_ids)

    def _measure(self, splits: list[str], stage: str) -> None:
        if not splits:
            return
        with self.clock("tokenise"):
            development = self.development(splits)
        self.model.to(self.args.device)
        with self.clock(stage), speedups(self.model, self.args, train=False, no_speedups=self.spec.no_speedups):
            self.evaluations |= {split: development.evaluate(self.model, split) for split in splits}

    def _score_classes(self, split: str) -> None:
        """Record the F1 of every class."""
        if not self.task.is_regression:
            predictions, labels = self.evaluations[split].predictions, self.data.examples[split].labels
            values = f1_by_class(predictions, labels, len(self.task.labels))
            self.record.class_f1[split] = dict(zip(self.task.labels, values, strict=True))

    def _keep_predictions(self, split: str) -> None:
        examples, predictions = self.data.examples[split], self.evaluations[split].predictions
        self.record.distinct_predictions[split] = len(np.unique(predictions))
        if (width := prediction_range(self.task, predictions, examples.labels)) is not None:
            self.record.prediction_range[split] = width
        if is_first():
            write_predictions(self.record.folder, self.task, split, examples, predictions)


def _notes_on_classes(task: Task, *checkpoints: Checkpoint | None) -> list[str]:
    """Notes on trained heads whose classes have other names than the task's."""
    heads = [head for head in checkpoints if head and head.fits(task) and not task.is_regression]
    pairs = [(head, pairs_by_order(task, head.classes)) for head in heads]
    return [
        f"{head.flag} {head.name}: its labels differ from those of {task.name}: {how}. If this is wrong, correct its "
        "config.json (id2label, label2id)"
        for head, how in pairs
        if how
    ]


def tell(notes: list[str]) -> None:
    """Print notes, one a line."""
    for note in notes:
        say(f"note: {note}")


def say(text: str) -> None:
    """Print a line, from the first process alone."""
    if is_first():
        print(text, file=sys.stderr, flush=True)
