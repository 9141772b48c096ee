"""A teacher's outputs for every training example: computed once, stored, and handed out with the batches."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from layerdrop.checkpoints import Checkpoint, original_layers
from layerdrop.criteria.selection import check_depth
from layerdrop.data.batches import Collator
from layerdrop.data.examples import Examples
from layerdrop.data.labels import Labels, head_kind
from layerdrop.data.tokens import Tokenised, tokenise
from layerdrop.errors import UserError
from layerdrop.finetune.precision import autocast, head_in_fp32
from layerdrop.finetune.spec import DistilSpec
from layerdrop.loading import load_classifier
from layerdrop.states import sentence_tokens, watching
from layerdrop.system.distributed import from_first_process, gather, rank, world_size
from layerdrop.system.files import TEMPORARY


def patient_pairs(n_student: int, n_teacher: int) -> list[tuple[int, int]]:
    """(student's layer, teacher's layer) of patient distillation: all but the student's last one, evenly spaced over
    the teacher's. 6 of 12: 0 to 4 with 1, 3, 5, 7, 9 (Sun et al.'s "skip")."""
    return [(i, (i + 1) * n_teacher // n_student - 1) for i in range(n_student - 1)]


def attach_teacher(
    distil: DistilSpec,
    teacher: Checkpoint,
    student: PreTrainedModel,
    examples: Examples,
    data: Tokenised,
    collate: Collator,
    labels: Labels,
    *,
    max_seq_length: int,
    device: torch.device,
    batch_size: int,
    precision: str,
    folder: str,
) -> "tuple[IndexedDataset, TeacherCollator, list[int]]":
    """Compute the teacher's outputs for every training example.

    Returns the training data, the collator whose batches hold the outputs, and the student's layers that are paired
    with the teacher's. examples, data: the training set, and the same tokenized for the student. labels: the student's.
    folder: for the outputs, which are deleted when the process ends. Raises UserError for a teacher with other classes,
    another width, depth or tokenizer than `distil` allows.
    """
    columns, pairs = _columns(teacher, labels), _pairs(distil, teacher, student)
    length = min(max_seq_length, teacher.max_length())
    tokens = tokenise(examples, teacher.tokenizer, length, sizes=teacher.embeddings)
    if distil.distill == "layers" and not _same_tokens(tokens, data):
        raise _refused(teacher, "has another tokenizer, so that its tokens are not the model's", "patient or logits")
    if teacher.config.model_type in teacher.family.fp32_only:
        precision = "fp32"
    model = load_classifier(teacher, replace_head=False)[0].to(device)
    with attending_eagerly(model) if distil.distill_attention else nullcontext():
        outputs = teacher_outputs(
            model,
            tokens,
            Collator.of(teacher.tokenizer),
            kind=distil.distill,
            layers=[theirs for _, theirs in pairs] if distil.distill_states_weight else [],
            attention=bool(distil.distill_attention and distil.distill_states_weight),
            columns=columns,
            folder=folder,
            batch_size=batch_size,
            precision=precision,
        )
    numbered = IndexedDataset(data.columns, data.offsets, data.labels, data.rows)
    return numbered, TeacherCollator(collate, outputs), [ours for ours, _ in pairs]


def _refused(teacher: Checkpoint, why: str, instead: str) -> UserError:
    return UserError(f"--teacher {teacher.name}: {why}. Use --distill {instead}, or another teacher.")


def _columns(teacher: Checkpoint, labels: Labels) -> list[int]:
    """The teacher's output for each of the student's. Raises UserError if their classes differ."""
    name, task, theirs = f"--teacher {teacher.name}", labels.task, Labels(labels.task, teacher)
    if not teacher.has_classifier:
        raise UserError(f"{name}: has no trained classifier. Fine-tune it first, or use --teacher auto.")
    if not theirs.fit:
        raise UserError(f"{name}: predicts {head_kind(teacher)}, {task.name} has {task.kind}. Give another teacher.")
    if teacher.label_names and theirs.pairs:
        raise UserError(
            f"{name}: its classes are {', '.join(teacher.label_names)}, those of {task.name} are "
            f"{', '.join(task.labels)}. Give a teacher for this task."
        )
    return theirs.to_model(labels.to_task(np.arange(task.kind.n_outputs))).tolist()


def _pairs(distil: DistilSpec, teacher: Checkpoint, student: PreTrainedModel) -> list[tuple[int, int]]:
    """(student's layer, teacher's layer), each in its own model. Raises UserError where they do not fit."""
    if distil.distill == "logits":
        return []
    ours, theirs = student.config.hidden_size, teacher.config.hidden_size
    if ours != theirs:
        raise _refused(teacher, f"its states have {theirs} numbers, the model's {ours}", "logits")
    check_depth(distil, student.config.num_hidden_layers)
    if distil.distill == "patient":
        return patient_pairs(student.config.num_hidden_layers, teacher.n_layers)
    n_original, kept = original_layers(student.config)
    if teacher.n_original != n_original or not set(kept) <= set(teacher.original_ids):
        raise _refused(teacher, "lacks layers that the model has", "patient or logits")
    return [(i, teacher.original_ids.index(original)) for i, original in enumerate(kept)]


def _same_tokens(a: Tokenised, b: Tokenised) -> bool:
    return np.array_equal(a.offsets, b.offsets) and np.array_equal(a.columns["input_ids"], b.columns["input_ids"])


class RaggedMemmap:
    """A vector of any length for each row, in a temporary memory-mapped file shared by all processes of the run."""

    def __init__(self, sizes: np.ndarray, dtype: torch.dtype, folder: str | Path):
        """sizes: (rows,) lengths. Call it in every process. Raises UserError if the disk is too small, or a process
        does not see the folder."""
        self.ends = np.concatenate([[0], np.cumsum(sizes)])
        size = int(self.ends[-1])
        path = Path(from_first_process(lambda: _new_file(size * dtype.itemsize, folder)))
        try:
            if not all(gather(path.is_file())):  # torch would create a second file
                raise UserError(
                    f"--output_dir {folder}: is not visible to every process. Give a folder that all machines share."
                )
            self.values = torch.from_file(str(path), shared=True, size=size, dtype=dtype)
            gather(None)  # all have it open
        finally:
            if rank() == 0:
                path.unlink(missing_ok=True)

    def __getitem__(self, row: int) -> torch.Tensor:
        """(length,); what is written there stays."""
        return self.values[self.ends[row] : self.ends[row + 1]]


def _new_file(n_bytes: int, folder: str | Path) -> str:
    """The path of a new file in a folder with n_bytes of free space. Raises UserError without the space."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    if n_bytes > (free := shutil.disk_usage(folder).free):
        raise UserError(
            f"--teacher: its outputs need {n_bytes / 1e9:.1f} GB in {folder}, but only {free / 1e9:.1f} GB are free. "
            "Use --distill patient or logits, --max_train_samples, or another --output_dir."
        )
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{TEMPORARY}teacher.", delete=False) as file:
        return file.name


@dataclass(frozen=True)
class Part:
    """A teacher's outputs of one batch."""

    rows: Sequence[int]
    mask: torch.Tensor
    """(batch, tokens)."""
    logits: torch.Tensor
    """(batch, classes) float32."""
    states: torch.Tensor | None
    """(batch, pairs, tokens or 1, hidden)."""
    attention: torch.Tensor | None
    """(batch, pairs, heads, tokens, tokens)."""


@dataclass(frozen=True)
class Shapes:
    """Sizes and types shared by the outputs of all rows."""

    classes: int
    states: tuple[int, int, torch.dtype] | None
    """Pairs, hidden units, type."""
    attention: tuple[int, torch.dtype] | None
    """Heads, type."""

    @classmethod
    def of(cls, part: Part) -> "Shapes":
        """The shapes of a batch's outputs."""
        states, attention = part.states, part.attention
        return cls(
            part.logits.shape[1],
            None if states is None else (states.shape[1], states.shape[-1], states.dtype),
            None if attention is None else (attention.shape[2], attention.dtype),
        )


@dataclass
class TeacherOutputs:
    """Outputs for every row: logits, and states of the paired layers."""

    logits: RaggedMemmap
    """(classes,) float32."""
    states: RaggedMemmap | None = None
    """(pairs, hidden), or for each token: (pairs, tokens, hidden)."""
    attention: RaggedMemmap | None = None
    """(pairs, heads, tokens, tokens)."""
    n_pairs: int = 0
    n_heads: int = 0
    every_token: bool = False

    @classmethod
    def empty(cls, shapes: Shapes, kind: str, lengths: np.ndarray, folder: str | Path) -> "TeacherOutputs":
        """Allocate the outputs of every row. lengths: tokens of each row."""
        one = np.ones_like(lengths)
        found = cls(RaggedMemmap(one * shapes.classes, torch.float32, folder), every_token=kind == "layers")
        if shapes.states:
            found.n_pairs, hidden, dtype = shapes.states
            found.states = RaggedMemmap((lengths if found.every_token else one) * found.n_pairs * hidden, dtype, folder)
        if shapes.attention:
            found.n_heads, dtype = shapes.attention
            found.attention = RaggedMemmap(lengths**2 * found.n_pairs * found.n_heads, dtype, folder)
        return found

    def write(self, part: Part) -> None:
        """Store the outputs of a batch."""
        for i, row in enumerate(part.rows):
            real = part.mask[i].bool()
            self.logits[row].copy_(part.logits[i])
            if part.states is not None:
                self.states[row].copy_((part.states[i][:, real] if self.every_token else part.states[i]).flatten())
            if part.attention is not None:
                self.attention[row].copy_(part.attention[i][:, :, real][:, :, :, real].flatten())

    def batch(self, rows: Sequence[int], mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """`teacher_logits` (batch, classes); `teacher_states` (batch, pairs, hidden), or (batch, pairs, tokens,
        hidden); `teacher_attention` (batch, pairs, heads, tokens, tokens); 0 for padding. mask: (batch, tokens)."""
        found = {"teacher_logits": torch.stack([self.logits[row] for row in rows])}
        if self.states is None:
            return found
        if not self.every_token:
            found["teacher_states"] = torch.stack([self.states[row].view(self.n_pairs, -1) for row in rows])
            return found
        real = [torch.nonzero(line).flatten() for line in mask]
        vectors = [self.states[row].view(self.n_pairs, len(at), -1) for row, at in zip(rows, real, strict=True)]
        shape = len(rows), self.n_pairs, mask.shape[1], vectors[0].shape[-1]
        found["teacher_states"] = states = torch.zeros(shape, dtype=vectors[0].dtype)
        for i, (vector, at) in enumerate(zip(vectors, real, strict=True)):
            states[i, :, at] = vector
        if self.attention is not None:
            shape = len(rows), self.n_pairs, self.n_heads, mask.shape[1], mask.shape[1]
            found["teacher_attention"] = attention = torch.zeros(shape, dtype=self.attention.values.dtype)
            for i, (row, at) in enumerate(zip(rows, real, strict=True)):
                weights = self.attention[row].view(self.n_pairs, self.n_heads, len(at), len(at))
                attention[i, :, :, at[:, None], at] = weights
        return found


@torch.no_grad()
def teacher_outputs(
    teacher: PreTrainedModel,
    data: Tokenised,
    collate: Collator,
    *,
    kind: str,
    layers: Sequence[int] = (),
    attention: bool = False,
    columns: Sequence[int] | None = None,
    folder: str | Path,
    batch_size: int = 32,
    precision: str = "fp32",
) -> TeacherOutputs:
    """One pass of a teacher, in evaluation mode and on its device, over all rows of `data`.

    Under torch.distributed each process computes a share of the batches, and all processes have all outputs.

    kind: `logits`, `patient` or `layers`. layers: ids of the layers whose states are kept. attention: their attention
    weights too, which needs eager attention. columns: order of the classes. folder: for the files of outputs.
    """
    was_training = teacher.training
    teacher.eval()
    with head_in_fp32(teacher), autocast(teacher.device, precision):
        parts = _parts(teacher, data.longest_first(), collate, kind, layers, attention, columns, batch_size)
        first = next(parts, None)  # none where there are fewer batches than processes
        shapes = from_first_process(lambda: Shapes.of(first))
        found = TeacherOutputs.empty(shapes, kind, np.diff(data.offsets), folder)
        for part in chain([first] if first else [], parts):
            found.write(part)
    teacher.train(was_training)
    gather(None)  # every process has written its part
    return found


def _parts(
    teacher: PreTrainedModel,
    dataset: Tokenised,
    collate: Collator,
    kind: str,
    layers: Sequence[int],
    attention: bool,
    columns: Sequence[int] | None,
    batch_size: int,
) -> Iterator[Part]:
    """The outputs of this process's share of the batches."""
    starts = range(0, len(dataset), batch_size)[rank() :: world_size()]
    for start in tqdm(starts, desc="teacher", delay=2, leave=False, disable=None):
        rows = dataset.rows[start : start + batch_size]
        batch = collate([dataset[start + i] for i in range(len(rows))])
        inputs = {name: tensor.to(teacher.device) for name, tensor in batch.items() if name != "labels"}
        mask = inputs["attention_mask"]
        with watching(teacher, mask.shape[1]) as seen:
            output = teacher(**inputs, **({"output_attentions": True} if attention else {}))
        logits = output.logits.float().cpu()
        states = torch.stack([seen.outputs[i] for i in layers], dim=1) if layers else None
        if states is not None and kind == "patient":
            states = states[torch.arange(len(rows)), :, sentence_tokens(teacher, mask)].unsqueeze(2)
        weights = _attentions(output, layers, mask) if attention else None
        yield Part(rows, mask, logits if columns is None else logits[:, list(columns)], states, weights)


def _attentions(output, layers: Sequence[int], mask: torch.Tensor) -> torch.Tensor:
    """(batch, layers, heads, tokens, tokens). Raises UserError for a model that does not give them."""
    given = output.attentions or ()
    if not given or given[0] is None or given[0].shape[-2:] != (mask.shape[1], mask.shape[1]):
        raise UserError(
            "--distill_attention: this model gives no attention of every token to every other. Leave it out."
        )
    return torch.stack([given[i] for i in layers], dim=1)


@contextmanager
def attending_eagerly(model: PreTrainedModel):
    """Use eager attention, which returns its weights; undone on exit."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class IndexedDataset(Tokenised):
    """Tokenised examples whose items know their row."""

    def __getitem__(self, position: int) -> dict:
        return super().__getitem__(position) | {"row": int(self.rows[position])}


@dataclass(frozen=True)
class TeacherCollator:
    """Batches of IndexedDataset examples with the teacher's outputs in them."""

    collate: Collator
    outputs: TeacherOutputs

    def length(self, longest: int) -> int:
        """See Collator."""
        return self.collate.length(longest)

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        """As Collator's, and as TeacherOutputs.batch."""
        rows = [item["row"] for item in items]
        batch = self.collate([{name: value for name, value in item.items() if name != "row"} for item in items])
        return batch | self.outputs.batch(rows, batch["attention_mask"])
