"""All flags of one run together: what follows from several of them."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from layerdrop.arguments.groups import DataArguments, DropArguments, ModelArguments, TrainArguments
from layerdrop.arguments.recipe import recipe
from layerdrop.checkpoints import is_local
from layerdrop.errors import UserError
from layerdrop.runs import RunSpec
from layerdrop.scorers import SCORERS
from layerdrop.strategies import get_strategy


@dataclass
class Arguments:
    """All flags of one run, checked."""

    model: ModelArguments
    data: DataArguments
    drop: DropArguments
    train: TrainArguments
    given: frozenset[str] = frozenset()
    """Names of the flags that were given, not left at their default."""
    notes: list[str] = field(default_factory=list)
    """What was translated from older flags."""

    @property
    def drop_layers(self) -> tuple[int, ...]:
        """The ids of --drop_layers."""
        return parse_ids("--drop_layers", self.drop.drop_layers)

    @property
    def freeze_layers(self) -> tuple[int, ...]:
        """The ids of --freeze_layers."""
        return parse_ids("--freeze_layers", self.drop.freeze_layers)

    @property
    def rolling_checkpoints(self) -> bool:
        """Whether checkpoints only serve to resume an interrupted run."""
        return "save_strategy" not in self.given and not self.train.load_best_model_at_end

    @property
    def splits(self) -> list[str]:
        """`train`, `validation`, `test`: what the job needs to read, and no more."""
        train, drop, data = self.train, self.drop, self.data
        needed = {"train": train.do_train, "validation": train.do_eval, "test": train.do_predict}
        if drop.dry_run:
            needed = dict.fromkeys(needed, False)
            if data.task is None:
                needed[data.own_files.files[0][0]] = True  # the files say how many classes there are
        row = get_strategy(drop.drop_strategy) if drop.drop_strategy else None
        if row and row.scorer and SCORERS[row.scorer].needs_data:
            needed[drop.score_split] = True
        return [split for split, wanted in needed.items() if wanted]

    def max_samples(self, split: str) -> int | None:
        """--max_train_samples, --max_eval_samples or --max_predict_samples for a split of that kind."""
        kinds = {"train": "max_train_samples", "validation": "max_eval_samples", "test": "max_predict_samples"}
        return getattr(self.data, kinds[split.partition("_")[0]])

    @property
    def needs_hub(self) -> bool:
        """Whether a model, tokenizer or data set is named that is no local folder."""
        names = (self.model.model_name_or_path, self.model.tokenizer_name, self.drop.score_on)
        hub_data = self.data.source == "hub" and bool(self.splits)
        return hub_data or self.train.push_to_hub or any(name and not is_local(name) for name in names)

    def spec(self, task: str, order: tuple[int, ...] = ()) -> RunSpec:
        """The identity of the run. task: its resolved name; order: of `greedy` or `optimal`."""
        model, data, drop, train = self.model, self.data, self.drop, self.train
        row = get_strategy(drop.drop_strategy) if drop.drop_strategy else None
        scorer = SCORERS[row.scorer] if row and row.scorer else None
        return RunSpec(
            model=model.model_name_or_path,
            task=task,
            data=data.source,
            strategy=drop.drop_strategy,
            k=len(self.drop_layers) if row and row.listed else drop.drop_k,
            threshold=drop.drop_threshold,
            layers=self.drop_layers,
            order=order,
            score_on=drop.score_on if scorer else None,
            score_split=drop.score_split if scorer and scorer.needs_data else None,
            score_samples=drop.max_score_samples if scorer and scorer.needs_data else None,
            weight_scope=drop.weight_scope if scorer and not scorer.needs_data else None,
            freeze_layers=self.freeze_layers,
            freeze_embeddings=drop.freeze_embeddings,
            seed=train.seed,
            max_seq_length=data.max_seq_length,
            pad_to_max_length=data.pad_to_max_length,
            precision=train.precision,
            max_train_samples=data.max_train_samples,
            max_eval_samples=data.max_eval_samples,
            revision=model.model_revision,
            processes=train.world_size,
            train=train.do_train,
            from_scratch=model.from_scratch,
            training=recipe(train) if train.do_train else {},
        )

    def default_output_dir(self) -> str:
        """runs/MODEL_TASK_STRATEGY_kK_seedS (`_scratch` before the seed where the weights are random)."""
        model, drop, own = self.model, self.drop, self.data.own_files
        task = self.data.task.name if self.data.task else own.name
        parts = [Path(model.model_name_or_path.rstrip("/")).name, task]
        if self.drop_layers:
            parts.append("list_" + "-".join(map(str, self.drop_layers)))
        elif drop.drop_strategy:
            how = f"k{drop.drop_k}" if drop.drop_threshold is None else f"t{drop.drop_threshold:g}"
            parts.append(f"{drop.drop_strategy}_{how}")
        else:
            parts.append("full_k0")
        parts += ["scratch"] * model.from_scratch + [f"seed{self.train.seed}"]
        return os.path.join("runs", "_".join(parts) + ("" if self.train.do_train else "_eval"))


def parse_ids(flag_name: str, text: str | None) -> tuple[int, ...]:
    """`9,10,11` -> (9, 10, 11). Raises UserError."""
    if text is None or not str(text).strip():
        return ()
    words = str(text).replace(" ", ",").strip("[]").split(",")
    try:
        return tuple(int(word) for word in words if word)
    except ValueError:
        raise UserError(f"{flag_name} '{text}': not a list of layer ids. Write them as 9,10,11.") from None
