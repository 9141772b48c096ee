"""The values of a run's flags, and values derived from several flags."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainingArguments

from layerdrop.cli.flags import (
    GROUPS,
    DataArguments,
    DropArguments,
    ModelArguments,
    TeacherArguments,
    TrainFlags,
    WhenArguments,
    flag,
)
from layerdrop.criteria.orders import read_layers_file
from layerdrop.criteria.table import Criterion, get_strategy
from layerdrop.data.files import dataset_task_name, own_task_name
from layerdrop.errors import UserError
from layerdrop.strategies import Strategy
from layerdrop.system.limits import RANGES


@dataclass
class TrainArguments(TrainFlags, TrainingArguments):
    """The library's TrainingArguments with the defaults of TrainFlags."""

    dataloader_pin_memory: bool = flag("Pin batches in memory for a GPU.", torch.cuda.is_available())

    @property
    def n_gpu(self) -> int:
        """GPUs of this process: 0 or 1. The library would use all GPUs, which would multiply the batch size."""
        return min(1, super().n_gpu)


ALL_GROUPS = (*GROUPS[:-1], TrainArguments)


@dataclass
class Flags:
    """The values of all flags of one run."""

    model: ModelArguments
    data: DataArguments
    drop: DropArguments
    when: WhenArguments
    teacher: TeacherArguments
    train: TrainArguments
    given: frozenset[str] = frozenset()
    """Names of the flags on the command line."""

    def values(self) -> dict[str, Any]:
        """Flag -> value, for all groups."""
        groups = (self.model, self.data, self.drop, self.when, self.teacher, self.train)
        return {name: value for group in groups for name, value in vars(group).items()}

    @property
    def drop_layers(self) -> tuple[int, ...]:
        """The ids of --drop_layers, ascending; with `list`, the ids in the layers.json of --drop_order_file."""
        drop = self.drop
        if drop.drop_strategy == "list" and drop.drop_order_file and drop.drop_layers is None is drop.keep_layers:
            return read_layers_file(drop.drop_order_file)
        return parse_ids("--drop_layers", drop.drop_layers)

    @property
    def keep_layers(self) -> tuple[int, ...]:
        """The ids of --keep_layers, ascending."""
        return parse_ids("--keep_layers", self.drop.keep_layers)

    @property
    def drop_order(self) -> tuple[int, ...]:
        """The ids of --drop_order, in its order."""
        return parse_ids("--drop_order", self.drop.drop_order, in_order=True)

    @property
    def elastic_k(self) -> tuple[int, ...]:
        """Every K of --elastic_k but 0, ascending; by default 1 to --drop_k.

        Empty without --drop_when elastic, and for `all`, which depends on the model.
        """
        given = self.when.elastic_k
        if self.when.drop_when != "elastic" or given == ["all"]:
            return ()
        if given is None:
            k = self.drop.drop_k or 0
            ks = range(1, k + 1) if k in RANGES["drop_k"] else ()
        else:
            ks = parse_ids("--elastic_k", " ".join(given), what="numbers of layers")
        return tuple(k for k in dict.fromkeys(ks) if k)

    @property
    def freeze_layers(self) -> tuple[int, ...]:
        """The ids of --freeze_layers, ascending."""
        return parse_ids("--freeze_layers", self.drop.freeze_layers)

    @property
    def named_strategy(self) -> Strategy | None:
        """The row of --drop_strategy; `list` if only layers are named, `top` for elastic depth. Raises UserError."""
        listed = self.drop_layers or self.keep_layers
        elastic = self.when.drop_when == "elastic" and self.drop.drop_k is not None
        name = self.drop.drop_strategy or ("list" if listed else "top" if elastic else None)
        return get_strategy(name) if name else None

    @property
    def drops_nothing(self) -> bool:
        """Whether --drop_k 0 is given, so that no strategy drops a layer."""
        return self.drop.drop_k == 0 and not self.drop_layers and not self.keep_layers

    @property
    def strategy(self) -> Strategy | None:
        """The strategy that selects layers; None if nothing is dropped. Raises UserError."""
        return None if self.drops_nothing else self.named_strategy

    @property
    def criterion(self) -> Criterion | None:
        """The strategy, if it is a criterion."""
        row = self.strategy
        return row if isinstance(row, Criterion) else None

    @property
    def task_name(self) -> str:
        """Name of the task. Without --task_name, own data are named after the dataset or the first file."""
        data = self.data
        if (task := data.task) is not None:
            return task.name
        if data.dataset_name:
            return dataset_task_name(data.dataset_name, data.dataset_config_name)
        return own_task_name(tuple(data.own.items()))

    @property
    def scored_split(self) -> str | None:
        """The split over which scores are averaged; None if no score needs data."""
        row = self.criterion
        return (self.drop.score_split or row.split) if row and row.needs_data else None

    @property
    def run_splits(self) -> list[str]:
        """`train`, `validation`, `test`: the splits that the run reads from files or the hub."""
        train = self.train
        needed = {"train": train.do_train, "validation": train.do_eval, "test": train.do_predict}
        return self._read_for(split for split, read in needed.items() if read or split == self.scored_split)

    def _read_for(self, splits: Iterable[str]) -> list[str]:
        """The splits to read: the training set instead of the validation set if it contains the validation rows."""
        held_out = self.data.hold_out is not None or self.data.validation_share is not None
        return list(dict.fromkeys("train" if held_out and split == "validation" else split for split in splits))

    @property
    def splits(self) -> list[str]:
        """The splits to read. A dry run needs only the scored split, and one own file for the classes."""
        if not self.drop.dry_run:
            return self.run_splits
        first = next(iter(self.data.own)) if self.data.task is None else None
        return self._read_for(s for s in ("train", "validation", "test") if s in (first, self.scored_split))


def parse_ids(flag_name: str, text: str | None, in_order: bool = False, what: str = "layer ids") -> tuple[int, ...]:
    """Parse `9,11,10` into (9, 10, 11); with in_order, into (9, 11, 10). Raises UserError.

    what: a name of the values for the message.
    """
    words = str(text or "").replace(" ", ",").strip("[]").split(",")
    try:
        ids = [int(word) for word in words if word]
        return tuple(ids if in_order else sorted(ids))
    except ValueError:
        raise UserError(f"{flag_name} '{text}': not a list of {what}. Write them as 9,10,11.") from None
