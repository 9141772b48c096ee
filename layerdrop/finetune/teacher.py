"""A teacher's outputs for every training example: computed once, stored on disk, added to the batches."""

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from layerdrop.architectures import original_layers
from layerdrop.checkpoints import Checkpoint
from layerdrop.data.batches import Collator
from layerdrop.data.examples import Examples
from layerdrop.data.labels import Labels, head_kind
from layerdrop.data.tokens import TokenizedDataset, tokenize
from layerdrop.errors import UserError
from layerdrop.finetune.distillation import check_depth
from layerdrop.finetune.precision import FP32_ONLY, autocast, head_in_fp32
from layerdrop.finetune.spec import DistilSpec
from layerdrop.loading import load_classifier
from layerdrop.states import record_states, sentence_tokens
from layerdrop.system.distributed import from_first_process, gather, rank, world_size
from layerdrop.system.files import TEMPORARY
from layerdrop.system.progress import progress

TOKENS = -1
"""Placeholder in a shape. It stands for the number of tokens of a row."""


def patient_pairs(n_student: int, n_teacher: int) -> list[tuple[int, int]]:
    """Pairs (student's layer, teacher's layer) of patient distillation.

    All student layers except the last are paired with evenly spaced teacher layers. 6 of 12 layers: 0, 1, 2, 3, 4 with
    1, 3, 5, 7, 9 (Sun et al.'s "skip").
    """
    return [(i, (i + 1) * n_teacher // n_student - 1) for i in range(n_student - 1)]


def attach_teacher(
    distil: DistilSpec,
    teacher: Checkpoint,
    student: PreTrainedModel,
    examples: Examples,
    data: TokenizedDataset,
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

    Returns the training data, the collator that adds the outputs to batches, and the paired layers of the student.

    examples, data: the training set, raw and tokenized for the student. labels: the student's. folder: for the files of
    outputs, which are deleted when the process ends. Raises UserError for a teacher whose classes, hidden size, depth
    or tokenizer `distil` does not allow.
    """
    columns, pairs = _columns(teacher, labels), _pairs(distil, teacher, student)
    length = min(max_seq_length, teacher.max_length())
    tokens = tokenize(examples, teacher.tokenizer, length, sizes=teacher.embeddings)
    of_tokens = data.words is not None
    if (distil.distill == "layers" or of_tokens) and not _same_tokens(tokens, data):
        why = "has another tokenizer, so its tokens differ from the model's"
        raise _refused(teacher, why, None if of_tokens else "patient or logits")
    model = load_classifier(teacher, replace_head=False)[0].to(device)
    with eager_attention(model) if distil.distill_attention else nullcontext():
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
            precision="fp32" if teacher.config.model_type in FP32_ONLY else precision,
        )
    indexed = IndexedDataset(data.columns, data.offsets, data.labels, data.rows, data.words)
    return indexed, TeacherCollator(collate, outputs), [ours for ours, _ in pairs]


def _refused(teacher: Checkpoint, why: str, instead: str | None) -> UserError:
    """instead: values of --distill that fit; None: no value fits."""
    remedy = f"Use --distill {instead}, or another teacher" if instead else "Use another teacher"
    return UserError(f"--teacher {teacher.name}: {why}. {remedy}.")


def _columns(teacher: Checkpoint, labels: Labels) -> list[int]:
    """For each output of the student, the id of the teacher's output. Raises UserError if the classes differ."""
    name, task, theirs = f"--teacher {teacher.name}", labels.task, Labels(labels.task, teacher)
    if not teacher.has_classifier:
        raise UserError(f"{name}: has no trained classifier. Fine-tune it first, or use --teacher auto.")
    if not theirs.fits:
        raise UserError(f"{name}: predicts {head_kind(teacher)}, {task.name} has {task.kind}. Give another teacher.")
    if teacher.label_names and theirs.pairs:
        raise UserError(
            f"{name}: its classes are {', '.join(teacher.label_names)}, those of {task.name} are "
            f"{', '.join(task.labels)}. Give a teacher for this task."
        )
    return np.argsort(theirs.ids)[labels.ids].tolist()


def _pairs(distil: DistilSpec, teacher: Checkpoint, student: PreTrainedModel) -> list[tuple[int, int]]:
    """Pairs (student's layer, teacher's layer) in each model's own numbering.

    Raises UserError if the models do not fit.
    """
    if distil.distill == "logits":
        return []
    ours, theirs = student.config.hidden_size, teacher.config.hidden_size
    if ours != theirs:
        raise _refused(teacher, f"its hidden size is {theirs}, the model's is {ours}", "logits")
    check_depth(distil, student.config.num_hidden_layers)
    if distil.distill == "patient":
        return patient_pairs(student.config.num_hidden_layers, teacher.n_layers)
    n_original, kept = original_layers(student.config)
    if teacher.n_original != n_original or not set(kept) <= set(teacher.original_ids):
        raise _refused(teacher, "lacks layers that the model has", "patient or logits")
    return [(i, teacher.original_ids.index(original)) for i, original in enumerate(kept)]


def _same_tokens(a: TokenizedDataset, b: TokenizedDataset) -> bool:
    return np.array_equal(a.offsets, b.offsets) and np.array_equal(a.columns["input_ids"], b.columns["input_ids"])


class RaggedMemmap:
    """A tensor for each row, in a temporary memory-mapped file that all processes of the run share."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, lengths: np.ndarray, folder: str | Path):
        """shape: shape of a row, with TOKENS for the number of tokens. lengths: (rows,) numbers of tokens.

        Call it in every process. Raises UserError if the disk is too small, or if a process cannot see the folder.
        """
        self.shape, self.lengths = tuple(shape), lengths
        sizes = lengths ** self.shape.count(TOKENS) * math.prod(size for size in self.shape if size != TOKENS)
        self.ends = np.concatenate([[0], np.cumsum(sizes)])
        size = int(self.ends[-1])
        path = Path(from_first_process(lambda: _new_file(size * dtype.itemsize, folder)))
        try:
            if not all(gather(path.is_file())):  # torch would create a second file
                raise UserError(
                    f"--output_dir {folder}: is not visible to every process. Choose a folder that all machines share."
                )
            self.values = torch.from_file(str(path), shared=True, size=size, dtype=dtype)
            gather(None)  # wait until every process has opened the file
        finally:
            if rank() == 0:
                path.unlink(missing_ok=True)

    def __getitem__(self, row: int) -> torch.Tensor:
        """The tensor of a row, without padding. Writing into it changes the file."""
        sizes = (int(self.lengths[row]) if size == TOKENS else size for size in self.shape)
        return self.values[self.ends[row] : self.ends[row + 1]].view(*sizes)

    def write(self, rows: Sequence[int], mask: torch.Tensor, tensor: torch.Tensor) -> None:
        """Store the rows of a padded batch (batch, *shape). mask: (batch, tokens)."""
        for i, row in enumerate(rows):
            self[row].copy_(tensor[i][self._real(mask[i])])

    def batch(self, rows: Sequence[int], mask: torch.Tensor) -> torch.Tensor:
        """(batch, *shape) of some rows, with 0 for padding. mask: (batch, tokens)."""
        sizes = (mask.shape[1] if size == TOKENS else size for size in self.shape)
        padded = torch.zeros(len(rows), *sizes, dtype=self.values.dtype)
        for i, row in enumerate(rows):
            padded[i][self._real(mask[i])] = self[row]
        return padded

    def _real(self, mask: torch.Tensor) -> tuple[slice, ...]:
        """Index of the real tokens in a padded row. mask: (tokens,), 1 for real tokens, which are consecutive."""
        start = int(mask.argmax())
        real = slice(start, start + int(mask.sum()))
        return tuple(real if size == TOKENS else slice(None) for size in self.shape)


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


@torch.no_grad()
def teacher_outputs(
    teacher: PreTrainedModel,
    data: TokenizedDataset,
    collate: Collator,
    *,
    kind: str,
    layers: Sequence[int] = (),
    attention: bool = False,
    columns: Sequence[int] | None = None,
    folder: str | Path,
    batch_size: int = 32,
    precision: str = "fp32",
) -> dict[str, RaggedMemmap]:
    """Compute a teacher's outputs for all rows of `data`, in evaluation mode on the teacher's device.

    Returns for each row: `teacher_logits`: (classes,) float32, or (tokens, classes) for labels of tokens.
    `teacher_states`: (pairs, hidden), or with `layers` (pairs, tokens, hidden). `teacher_attention`: (pairs, heads,
    tokens, tokens).

    Under torch.distributed, each process computes a share of the batches, and all processes can read all outputs.

    kind: `logits`, `patient` or `layers`. layers: ids of the layers whose states are stored. attention: also
    store their attention weights, which needs eager attention. columns: order of the classes. folder: for the files of
    outputs.
    """
    was_training, dataset = teacher.training, data.longest_first()
    teacher.eval()

    def compute(start: int) -> tuple[np.ndarray, torch.Tensor, dict[str, torch.Tensor]]:
        """Rows, mask and outputs of a batch."""
        rows = dataset.rows[start : start + batch_size]
        batch = collate([dataset[start + i] for i in range(len(rows))])
        inputs = {name: tensor.to(teacher.device) for name, tensor in batch.items() if name != "labels"}
        with record_states(teacher, inputs["attention_mask"].shape[1]) as recorded:
            output = teacher(**inputs, **({"output_attentions": True} if attention else {}))
        outputs = {"teacher_logits": output.logits.float()[..., slice(None) if columns is None else list(columns)]}
        if layers:
            states = torch.stack([recorded.outputs[i] for i in layers], dim=1)
            token = sentence_tokens(teacher, inputs["attention_mask"])
            outputs["teacher_states"] = states[torch.arange(len(rows)), :, token] if kind == "patient" else states
        if attention:
            outputs["teacher_attention"] = _attentions(output, layers, batch["attention_mask"])
        return rows, batch["attention_mask"], {name: tensor.cpu() for name, tensor in outputs.items()}

    with head_in_fp32(teacher), autocast(teacher.device, precision):
        starts = range(0, len(dataset), batch_size)[rank() :: world_size()]
        parts = map(compute, progress(starts, "teacher"))
        first = next(parts, None)  # none if there are fewer batches than processes
        shapes = from_first_process(lambda: _row_shapes(first[2], kind))
        stored = {name: RaggedMemmap(*row, np.diff(data.offsets), folder) for name, row in shapes.items()}
        for rows, mask, outputs in chain([first] if first else [], parts):
            for name, tensor in outputs.items():
                stored[name].write(rows, mask, tensor)
    teacher.train(was_training)
    gather(None)  # wait until every process has written its part
    return stored


def _row_shapes(outputs: Mapping[str, torch.Tensor], kind: str) -> dict[str, tuple[list[int], torch.dtype]]:
    """(shape of a row, type) of each output. outputs: the outputs of a batch."""
    token_axes = {"teacher_states": (1,), "teacher_attention": (2, 3)} if kind == "layers" else {}
    if outputs["teacher_logits"].dim() == 3:
        token_axes["teacher_logits"] = (0,)
    shapes = {}
    for name, tensor in outputs.items():
        sizes = enumerate(tensor.shape[1:])
        shapes[name] = [TOKENS if i in token_axes.get(name, ()) else size for i, size in sizes], tensor.dtype
    return shapes


def _attentions(output, layers: Sequence[int], mask: torch.Tensor) -> torch.Tensor:
    """Attention weights (batch, layers, heads, tokens, tokens). Raises UserError if the model does not return them."""
    weights = output.attentions or ()
    if not weights or weights[0] is None or weights[0].shape[-2:] != (mask.shape[1], mask.shape[1]):
        raise UserError(
            "--distill_attention: this model does not return the attention between all tokens. Leave it out."
        )
    return torch.stack([weights[i] for i in layers], dim=1)


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use eager attention, which returns its weights; undone on exit."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class IndexedDataset(TokenizedDataset):
    """Tokenized examples. Each item has its row number under `row`."""

    def __getitem__(self, position: int) -> dict:
        return super().__getitem__(position) | {"row": int(self.rows[position])}


@dataclass(frozen=True)
class TeacherCollator:
    """Collate IndexedDataset items, and add the teacher's outputs."""

    collate: Collator
    outputs: Mapping[str, RaggedMemmap]
    """The result of teacher_outputs."""

    def length(self, longest: int) -> int:
        """The padded length of a batch, as Collator.length."""
        return self.collate.length(longest)

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        """Collate a batch, and add the teacher's outputs of its rows, padded with 0."""
        rows = [item["row"] for item in items]
        batch = self.collate([{name: value for name, value in item.items() if name != "row"} for item in items])
        return batch | {name: stored.batch(rows, batch["attention_mask"]) for name, stored in self.outputs.items()}
