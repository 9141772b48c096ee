"""Where examples come from (hub, local GLUE folder, own files), and how they become tokenised datasets and batches."""

import csv
import hashlib
import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from layerdrop.checkpoints import WAYS_WITHOUT_HUB
from layerdrop.demo.tasks import rows
from layerdrop.errors import UserError
from layerdrop.tasks import DEMO_TASKS, Task, custom_task

HUB_DATASET = "nyu-mll/glue"
LOCAL_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
FILE_TYPES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


# ---- reading -------------------------------------------------------------------------------------------------------
@dataclass
class Examples:
    """One split as read. n rows in the order of the source."""

    texts: tuple[list[str], ...]
    """One or two lists of n texts."""
    labels: np.ndarray | None
    """(n,) class ids (int64) or values (float32); None for a split without labels."""
    index: list[str]
    """n names of rows, as the source gives them or counted from 0: what GLUE's submissions call `index`."""
    bad_rows: int = 0
    """Malformed rows that were skipped."""

    def __len__(self) -> int:
        return len(self.index)

    def head(self, n: int | None) -> "Examples":
        """The first n rows (all for None)."""
        texts = tuple(column[:n] for column in self.texts)
        return Examples(texts, None if self.labels is None else self.labels[:n], self.index[:n], self.bad_rows)

    def fingerprint(self) -> str:
        """A hash of texts and labels: two runs with the same one read the same rows in the same order."""
        digest = hashlib.sha256()
        for column in self.texts:
            digest.update("\x1f".join(column).encode("utf-8", "surrogatepass"))
            digest.update(b"\x1e")
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()[:16]


class BadRow(ValueError):
    """A row that cannot be read; the message says why."""


def _bad_row(path: str | Path, line: int, reason: BadRow) -> UserError:
    return UserError(f"{path}:{line}: {reason}. Mend the row, or leave such rows out with --skip_bad_rows.")


Row = tuple[tuple[str, ...], float | int | None, str]
"""(texts, label, index)"""


def _collect(path: Path, rows: Iterator[tuple[int, Callable[[], Row]]], skip_bad_rows: bool) -> Examples:
    """All rows of a file. `rows` gives the line (from 1) and a function that parses it, raising BadRow."""
    good: list[Row] = []
    bad = 0
    for line, parse in rows:
        try:
            good.append(parse())
        except BadRow as error:
            if not skip_bad_rows:
                raise _bad_row(path, line, error) from None
            bad += 1
    if not good:
        raise UserError(f"{path}: no usable row ({bad} malformed). Check the file.")
    texts = tuple(list(column) for column in zip(*(row[0] for row in good), strict=True))
    labels = [row[1] for row in good]
    kind = np.float32 if isinstance(labels[0], float) else np.int64
    return Examples(texts, None if labels[0] is None else np.array(labels, dtype=kind), [row[2] for row in good], bad)


def _parse_label(task: Task, words: Sequence[str], text: str) -> float | int:
    if task.is_regression:
        try:
            value = float(text)
        except ValueError:
            raise BadRow(f"label '{text}' is not a number") from None
        if not np.isfinite(value):
            raise BadRow(f"label '{text}' is not a finite number")
        return value
    if text not in words:
        raise BadRow(f"label '{text}' is none of {', '.join(words)}")
    return list(words).index(text)


def read_glue_tsv(path: Path, task: Task, labelled: bool, skip_bad_rows: bool = False) -> Examples:
    """A file of the classical GLUE layout: tab-separated, no quoting, a header (CoLA's labelled files have none).

    Raises UserError for a missing file or column, and with file and line for a malformed row.
    """
    try:
        file = open(path, encoding="utf-8-sig", newline="\n")  # noqa: SIM115  closed below
    except OSError as error:
        raise UserError(f"--data_dir: cannot read {path} ({error.strerror}). {_expected_layout(task)}") from None
    with file:
        lines = ((number, line.rstrip("\r\n")) for number, line in enumerate(file, 1))
        try:
            header = task.header if task.header and labelled else tuple(next(lines, (0, ""))[1].split("\t"))
            wanted = (*task.texts, task.label) if labelled else task.texts
            if missing := [column for column in wanted if column not in header]:
                raise UserError(
                    f"{path}:1: no column {', '.join(missing)}; found: {', '.join(header)}. {_expected_layout(task)}"
                )
            texts = [header.index(column) for column in task.texts]
            label = header.index(task.label) if labelled else None
            index = next((header.index(name) for name in ("index", "id") if name in header), None)

            def parse(line: str) -> Row:
                fields = line.split("\t")
                if len(fields) != len(header):
                    raise BadRow(f"{len(fields)} columns instead of {len(header)}")
                value = None if label is None else _parse_label(task, task.words, fields[label])
                return tuple(fields[i] for i in texts), value, fields[index] if index is not None else ""

            rows = ((number, lambda line=line: parse(line)) for number, line in lines if line)
            examples = _collect(path, rows, skip_bad_rows)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: not UTF-8 text ({error.reason} at byte {error.start}). Convert the file."
            ) from None
    if index is None:
        examples.index = [str(i) for i in range(len(examples))]
    return examples


def _expected_layout(task: Task) -> str:
    folder = task.folder
    return f"Expected for {task.name}: {folder}/train.tsv, {folder}/dev{task.suffixes[0]}.tsv ... as GLUE ships them."


def read_glue_split(data_dir: str, task: Task, split: str, skip_bad_rows: bool = False) -> Examples:
    """One split (`train`, `validation`, `test`, for MNLI with `_matched` or `_mismatched`) of a local GLUE folder.

    `data_dir` holds the task's folder (`RTE`), or is that folder.
    """
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"--data_dir {data_dir}: no such folder. {_expected_layout(task)}")
    if (folder / task.folder).is_dir():
        folder = folder / task.folder
    stem, _, suffix = split.partition("_")
    name = LOCAL_SPLITS[stem] + (f"_{suffix}" if suffix else "")
    return read_glue_tsv(folder / f"{name}.tsv", task, stem != "test", skip_bad_rows)


def read_demo_split(task: Task, split: str) -> Examples:
    """One split of a task of the embedded artificial language."""
    made = rows(task.name, split)
    labels = np.array(list(made.values()), dtype=np.float32 if task.is_regression else np.int64)
    texts = tuple(list(column) for column in zip(*made, strict=True))
    return Examples(texts, None if split == "test" else labels, [str(i) for i in range(len(made))])


def read_hub_split(task: Task, split: str, cache_dir: str | None = None, token: str | None = None) -> Examples:
    """One split of a GLUE task from the hub (or its local cache)."""
    import datasets

    try:
        rows = datasets.load_dataset(HUB_DATASET, task.name, split=split, cache_dir=cache_dir, token=token)
    except Exception as error:  # the library raises OSError, ValueError, ConnectionError and its own
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"--task_name {task.name}: cannot get {HUB_DATASET} ({task.name}, {split}) from the hub or the local cache "
            f"({reason}). {WAYS_WITHOUT_HUB}."
        ) from error
    labels = np.array(rows["label"], dtype=np.float32 if task.is_regression else np.int64)
    texts = tuple(list(rows[column]) for column in task.hub_texts)
    return Examples(texts, None if split.startswith("test") else labels, [str(i) for i in rows["idx"]])


# ---- own files -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class OwnFiles:
    """The user's own files and how to read them; `None` where the files themselves tell."""

    files: tuple[tuple[str, str], ...]
    """(split, path) pairs."""
    text_columns: tuple[str, ...] = ()
    label_column: str = "label"
    regression: bool | None = None

    @property
    def name(self) -> str:
        """What the task is called: the first file's name, or its folder's where that only says which split it is."""
        path = Path(self.files[0][1]).absolute()
        return path.parent.name if path.stem in ("train", "validation", "dev", "test") else path.stem


def _read_table(path: Path) -> Iterator[tuple[int, dict[str, object] | BadRow]]:
    """(line counted from 1, row) for each row of a csv, tsv, json-lines or parquet file; a bad row comes as BadRow."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        import pyarrow.parquet

        for number, row in enumerate(pyarrow.parquet.read_table(path).to_pylist(), 1):
            yield number, row
        return
    with open(path, encoding="utf-8-sig", newline="") as file:
        if kind in (".json", ".jsonl"):
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    yield number, BadRow(f"not a JSON object on one line ({error.msg})")
                    continue
                yield number, row if isinstance(row, dict) else BadRow("not a JSON object")
            return
        quoting = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == ".tsv" else {"strict": True}
        reader = csv.reader(file, **quoting)
        header = next(reader, [])
        start = reader.line_num + 1
        try:
            for fields in reader:
                if len(fields) == len(header):
                    yield start, dict(zip(header, fields, strict=True))
                elif fields:
                    yield start, BadRow(f"{len(fields)} columns instead of {len(header)}")
                start = reader.line_num + 1
        except csv.Error as error:
            yield start, BadRow(f"{error}")


def _load_table(flag: str, path_name: str) -> list[tuple[int, dict[str, object] | BadRow]]:
    path = Path(path_name).expanduser()
    kind = path.suffix.lower()
    if kind not in FILE_TYPES:
        raise UserError(f"{flag} {path}: unknown file type '{path.suffix}'. Allowed: {', '.join(FILE_TYPES)}.")
    try:
        rows = list(_read_table(path))
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot read the file ({error.strerror or error}). Check the path.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}). Convert the file.") from None
    except Exception as error:
        if path.suffix.lower() != ".parquet":
            raise
        raise UserError(f"{flag} {path}: not a readable parquet file ({str(error).splitlines()[0]}).") from None
    if not any(isinstance(row, dict) for _, row in rows):
        how = "Write one object on each line" if kind in (".json", ".jsonl") else "The first line must name the columns"
        raise UserError(f"{flag} {path}: no usable row. {how}.")
    return rows


def _text_columns(path: str, columns: list[str], own: OwnFiles) -> tuple[str, ...]:
    if own.text_columns:
        if missing := [name for name in own.text_columns if name not in columns]:
            raise UserError(f"--text_columns: {path} has no column {', '.join(missing)}; found: {', '.join(columns)}.")
        return own.text_columns
    for usual in (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "sentence")):
        if set(usual) <= set(columns):
            return usual
    rest = tuple(name for name in columns if name not in (own.label_column, "idx", "index", "id"))
    if not 1 <= len(rest) <= 2:
        raise UserError(
            f"{path}: cannot tell the text columns from {', '.join(columns)}. Name them: --text_columns A,B."
        )
    return rest


def _as_text(value: object) -> str:
    if value is None or value == "":
        raise BadRow("an empty cell where text or a label should be")
    return str(value)


def _label_names(values: list[str]) -> tuple[str, ...]:
    """Class names in id order: numeric where all are whole numbers, else alphabetic."""
    names = set(values)
    whole = all(name.lstrip("-").isdigit() for name in names)
    return tuple(sorted(names, key=int if whole else None))


def _looks_like_regression(values: list[object]) -> bool:
    def number(value: object) -> bool:
        try:
            float(str(value))
        except ValueError:
            return False
        return True

    whole = all(str(value).lstrip("-").isdigit() for value in values)
    return bool(values) and not whole and all(number(value) for value in values)


def read_own_files(
    own: OwnFiles, task: Task | None, known_labels: Sequence[str] = (), skip_bad_rows: bool = False
) -> tuple[Task, dict[str, Examples]]:
    """The task that the files describe (or `task`, with the files' column names) and the examples of each split.

    Classes are those of the train file; without one `known_labels` (the checkpoint's), else those of the first file.
    Raises UserError for unreadable files, unknown columns, and with file and line for a malformed row.
    """
    tables = {split: (path, _load_table(f"--{split}_file", path)) for split, path in own.files}
    for path, table in tables.values():
        if not skip_bad_rows and (bad := next((row for row in table if isinstance(row[1], BadRow)), None)):
            raise _bad_row(path, *bad)
    path, rows = next(iter(tables.values()))
    columns = list(next(row for _, row in rows if isinstance(row, dict)))
    texts = _text_columns(path, columns, own)
    if task is not None:
        task = replace(task, texts=texts, label=own.label_column, suffixes=("",))
    else:
        values = [row.get(own.label_column) for _, row in rows if isinstance(row, dict)]
        values = [value for value in values if value is not None and value != ""]
        if not values and not known_labels:
            raise UserError(f"--label_column: {path} has no '{own.label_column}'; found: {', '.join(columns)}.")
        regression = own.regression if own.regression is not None else _looks_like_regression(values)
        from_train = next(iter(tables)) == "train"
        names = (
            ()
            if regression
            else _label_names([str(v) for v in values])
            if from_train or not known_labels
            else tuple(known_labels)
        )
        if not regression and len(names) < 2:
            raise UserError(f"{path}: only one class, '{names[0]}'. Where the label is a number: --label_type number.")
        task = custom_task(own.name, texts, own.label_column, names)
    return task, {
        split: _own_split(Path(path), rows, task, labelled=split != "test", skip_bad_rows=skip_bad_rows)
        for split, (path, rows) in tables.items()
    }


def _own_split(path: Path, table: list, task: Task, labelled: bool, skip_bad_rows: bool) -> Examples:
    def parse(row: dict | BadRow) -> Row:
        if isinstance(row, BadRow):
            raise row
        if missing := [name for name in (*task.texts, *([task.label] if labelled else [])) if name not in row]:
            raise BadRow(f"no column {', '.join(missing)}; found: {', '.join(row)}")
        label = None
        if labelled:
            text = _as_text(row[task.label])
            spellings = (task.words, task.labels, tuple(map(str, range(task.num_labels))))
            words = next((words for words in spellings if text in words), task.words)
            label = _parse_label(task, words, text)
        index = next((str(row[name]) for name in ("index", "idx", "id") if row.get(name) is not None), "")
        return tuple(_as_text(row[name]) for name in task.texts), label, index

    examples = _collect(path, ((n, lambda row=row: parse(row)) for n, row in table), skip_bad_rows)
    if not all(examples.index):
        examples.index = [str(i) for i in range(len(examples))]
    return examples


def read_splits(
    task: Task | None,
    splits: Sequence[str],
    *,
    data_dir: str | None = None,
    own: OwnFiles | None = None,
    known_labels: Sequence[str] = (),
    skip_bad_rows: bool = False,
    cache_dir: str | None = None,
    token: str | None = None,
) -> tuple[Task, dict[str, Examples]]:
    """The task and the examples of each of `splits`: own files, the demo's, a local GLUE folder, or else the hub.

    `splits` are `train`, `validation`, `test`; MNLI gives two for each of the latter. Only what is asked for is read.
    """
    if own is not None:
        wanted = OwnFiles(
            tuple((s, path) for s, path in own.files if s in splits), own.text_columns, own.label_column, own.regression
        )
        return read_own_files(wanted, task, known_labels, skip_bad_rows)
    names = [name for split in splits for name in task.splits(split)]
    if task.name in DEMO_TASKS:
        return task, {name: read_demo_split(task, name) for name in names}
    if data_dir is not None:
        return task, {name: read_glue_split(data_dir, task, name, skip_bad_rows) for name in names}
    return task, {name: read_hub_split(task, name, cache_dir, token) for name in names}


# ---- tokenised datasets and batches --------------------------------------------------------------------------------
class Tokenised(torch.utils.data.Dataset):
    """Token ids of n examples in flat arrays, without padding.

    columns: name (`input_ids`, `token_type_ids`) -> (total tokens,) int32; offsets: (n + 1,) ends of the examples in
    them; labels: (n,) or None; rows: (n,) row of `Examples` that each position holds.
    """

    def __init__(self, columns: dict[str, np.ndarray], offsets: np.ndarray, labels: np.ndarray | None, rows=None):
        self.columns, self.offsets, self.labels = columns, offsets, labels
        self.rows = np.arange(len(offsets) - 1) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict:
        row = self.rows[position]
        part = slice(self.offsets[row], self.offsets[row + 1])
        item = {name: column[part] for name, column in self.columns.items()}
        if self.labels is not None:
            item["labels"] = self.labels[row]
        return item

    @property
    def lengths(self) -> np.ndarray:
        """(n,) number of tokens at each position."""
        return np.diff(self.offsets)[self.rows]

    def longest_first(self) -> "Tokenised":
        """The same examples, longest first: batches of neighbours hold little padding. `rows` tells the way back."""
        order = np.argsort(-self.lengths, kind="stable")
        return Tokenised(self.columns, self.offsets, self.labels, self.rows[order])


def tokenise(examples: Examples, tokenizer, max_seq_length: int, labels: np.ndarray | None = None) -> Tokenised:
    """Tokenise every example to at most `max_seq_length` tokens; pairs are cut from the longer text first.

    labels: what takes the place of `examples.labels` (the same classes in a checkpoint's own order). The last few
    results are kept: a process that does several runs of a study tokenises each split once.
    """
    texts = _Known(examples, examples.fingerprint())
    columns, offsets = _tokenise(texts, _Known(tokenizer, _tokenizer_key(tokenizer)), max_seq_length)
    return Tokenised(columns, offsets, examples.labels if labels is None else labels)


@dataclass(frozen=True)
class _Known:
    """A value that counts as equal to another of the same key."""

    value: Any = field(compare=False)
    key: Hashable


def _tokenizer_key(tokenizer) -> Hashable:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else tokenizer.name_or_path  # without a fast form its name must do
    return type(tokenizer), rules, tuple(tokenizer.model_input_names), tokenizer.truncation_side


@lru_cache(maxsize=8)
def _tokenise(examples: _Known, tokenizer: _Known, max_seq_length: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns and offsets of Tokenised."""
    examples, tokenizer = examples.value, tokenizer.value
    names = [name for name in tokenizer.model_input_names if name != "attention_mask"]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    lengths: list[int] = []
    size = 1000
    for start in tqdm(range(0, len(examples), size), desc="tokenise", delay=2, leave=False, unit="k rows"):
        texts = [column[start : start + size] for column in examples.texts]
        encoded = tokenizer(*texts, truncation=True, max_length=max_seq_length, return_attention_mask=False)
        lengths += [len(ids) for ids in encoded["input_ids"]]
        for name in names:
            parts[name].append(np.concatenate([np.asarray(ids, dtype=np.int32) for ids in encoded[name]]))
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return columns, np.concatenate([[0], np.cumsum(lengths)])


@dataclass(frozen=True)
class Collator:
    """A list of `Tokenised` items -> one batch of tensors, padded to its longest example.

    max_length: if given, the length is rounded up by at most a sixteenth, to no more than this. (Kernels are prepared
    anew for every new length, on a CPU for about half of a training step: fewer lengths, less of that.)
    fill: pad every batch to max_length.
    """

    padding_values: dict[str, int]
    left: bool
    max_length: int | None = None
    fill: bool = False

    @classmethod
    def of(cls, tokenizer, max_length: int | None = None, fill: bool = False) -> "Collator":
        """The collator that pads as this tokenizer does (XLNet: on the left)."""
        values = {
            "input_ids": tokenizer.pad_token_id or 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
        }
        return cls(values, tokenizer.padding_side == "left", max_length, fill)

    def length(self, longest: int) -> int:
        """To how many tokens a batch is padded whose longest example has `longest`."""
        if self.max_length is None or self.fill:
            return self.max_length or longest
        step = max(1, longest // 16)
        return min(-(-longest // step) * step, self.max_length)

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` (and `token_type_ids`): (batch, tokens) int64; `labels`: (batch,)."""
        longest = self.length(max(len(item["input_ids"]) for item in items))
        names = [name for name in items[0] if name != "labels"]
        batch = {name: np.full((len(items), longest), self.padding_values.get(name, 0), np.int64) for name in names}
        mask = np.zeros((len(items), longest), np.int64)
        for i, item in enumerate(items):
            length = len(item["input_ids"])
            part = slice(longest - length, longest) if self.left else slice(0, length)
            mask[i, part] = 1
            for name in names:
                batch[name][i, part] = item[name]
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        tensors["attention_mask"] = torch.from_numpy(mask)
        if "labels" in items[0]:
            tensors["labels"] = torch.from_numpy(np.array([item["labels"] for item in items]))
        return tensors


class LengthGroupedSampler(torch.utils.data.Sampler):
    """Positions of an epoch, such that consecutive batches hold examples of like length, in random order.

    Examples are shuffled, sorted by length within windows of `window` batches, cut into batches, and the batches are
    shuffled; a last, smaller batch stays last. The order depends on `seed` and the epoch alone, so that a resumed run
    sees what an uninterrupted one sees. `tokens` and `padded_tokens` count what has been handed out; padded: to how
    many tokens a batch is padded whose longest example has so many.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        seed: int,
        window: int = 50,
        padded: Callable[[int], int] = int,
    ):
        self.lengths, self.batch_size, self.seed, self.window, self.padded = lengths, batch_size, seed, window, padded
        self.epoch = 0
        self.tokens = self.padded_tokens = 0

    def set_epoch(self, epoch: int) -> None:
        """Call before an epoch's iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.lengths))
        span = self.batch_size * self.window
        windows = [order[i : i + span] for i in range(0, len(order), span)]
        order = np.concatenate([part[np.argsort(-self.lengths[part], kind="stable")] for part in windows])
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        last = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        batches = [batches[i] for i in generator.permutation(len(batches))] + last
        for batch in batches:
            lengths = self.lengths[batch]
            self.tokens += int(lengths.sum())
            self.padded_tokens += self.padded(int(lengths.max())) * len(batch)
            yield from batch.tolist()


def batches(dataset: Tokenised, batch_size: int) -> list[list[dict]]:
    """All items in batches of neighbours, longest first; a Collator makes tensors of each."""
    dataset = dataset.longest_first()
    starts = range(0, len(dataset), batch_size)
    return [[dataset[i] for i in range(start, min(start + batch_size, len(dataset)))] for start in starts]
