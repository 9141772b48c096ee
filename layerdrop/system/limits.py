"""Ranges of numbers: the numeric flags of all commands, the fields of a run's spec, the losses and callbacks."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from layerdrop.errors import UserError
from layerdrop.strategies import MOST_LAYERS, is_whole
from layerdrop.system.typecheck import LARGEST


def is_number(value: Any, whole: bool = False) -> bool:
    """Whether a value is a finite number and not a Boolean. whole: whether it must be a whole number."""
    if is_whole(value):
        return True
    return not (whole or isinstance(value, bool)) and isinstance(value, Real) and math.isfinite(value)


@dataclass(frozen=True)
class Range:
    """Finite numbers that a setting accepts."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    """Whether `least` itself is excluded."""
    below: bool = False
    """Whether `most` itself is excluded."""
    hint: str = ""
    """Last sentence of the error message."""
    also: float | None = None
    """Value outside the range that means `not set`."""
    whole: bool = False
    """Whether only whole numbers are accepted."""

    def __contains__(self, value: Any) -> bool:
        """Whether a value of any type is a number in the range."""
        if not is_number(value, self.whole) or (isinstance(value, Integral) and abs(value) >= LARGEST):
            return False
        large_enough = value > self.least if self.above else value >= self.least
        small_enough = value < self.most if self.below else value <= self.most
        return (large_enough and small_enough) or value == self.also

    def __str__(self) -> str:
        if math.isinf(self.least):
            return "a finite number"
        if not (self.above or self.below or math.isinf(self.most)):
            return f"from {self.least:,.10g} to {self.most:.10g}"
        low = f"above {self.least:g}" if self.above else f"{self.least:g} or more"
        return low if math.isinf(self.most) else f"{low} and below {self.most:g}"

    def refusal(self, name: str, value: Any) -> UserError:
        """The error for a value outside the range. name: the setting's name for the message."""
        known = is_number(value, self.whole) or math.isinf(self.least)
        kind = "" if known else f"a {'whole' if self.whole else 'finite'} number, "
        return UserError(f"must be {kind}{self}. {self.hint}".rstrip(), name, str(value))

    def check(self, name: str, value: Any) -> None:
        """Raise UserError for a value outside the range. name: the setting's name for the message."""
        if value not in self:
            raise self.refusal(name, value)


FINITE = Range()
POSITIVE, NOT_NEGATIVE = Range(0, above=True), Range(0)
SHARE, PROBABILITY = Range(0, 1), Range(0, 1, below=True)
COUNT, NOT_NEGATIVE_COUNT, SEED = Range(1, whole=True), Range(0, whole=True), Range(0, 2**32 - 1, whole=True)

RANGES: Mapping[str, Range] = {
    # data
    "max_seq_length": Range(2, whole=True),
    **dict.fromkeys(("max_train_samples", "max_eval_samples", "max_predict_samples", "max_score_samples"), COUNT),
    "validation_share": Range(0, 1, above=True, below=True, hint="Give a fraction of the training set, such as 0.1."),
    "hold_out": Range(0, 1, above=True, below=True, hint="Give a fraction of the training set, such as 0.15."),
    # layers
    "drop_k": Range(0, MOST_LAYERS, hint="Give a number of layers to drop.", whole=True),
    "drop_threshold": Range(-1, 1, hint="Give a cosine similarity. Sajjad et al. use 0.95, 0.925, 0.9."),
    **dict.fromkeys(("drop_step", "drop_every_epochs"), COUNT),
    "elastic_k": Range(1, MOST_LAYERS, hint="Give numbers of layers to drop, such as 2 4 6.", whole=True),
    "layerdrop_rate": Range(0, 1, below=True, hint="Give a probability, such as 0.2."),
    "replacing_rate": SHARE,
    "replacing_steps": NOT_NEGATIVE,
    **dict.fromkeys(("start_num_train_epochs", "teacher_num_train_epochs"), POSITIVE),
    **dict.fromkeys(("start_learning_rate", "teacher_learning_rate"), POSITIVE),
    # teacher
    "distill_temperature": POSITIVE,
    "distill_weight": SHARE,
    "distill_states_weight": NOT_NEGATIVE,
    # training
    "per_device_train_batch_size": COUNT,
    "per_device_eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "num_train_epochs": Range(0, above=True, hint="To evaluate without training, use layerdrop run with --do_eval."),
    "max_steps": Range(0, above=True, hint="To train --num_train_epochs, leave --max_steps out.", also=-1, whole=True),
    "learning_rate": NOT_NEGATIVE,
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), PROBABILITY),
    **dict.fromkeys(("adam_epsilon", "weight_decay", "max_grad_norm", "warmup_steps"), NOT_NEGATIVE),
    "neftune_noise_alpha": NOT_NEGATIVE,
    **dict.fromkeys(("seed", "data_seed"), SEED),
    # evaluation, logging, checkpoints
    **dict.fromkeys(("logging_steps", "save_steps"), POSITIVE),
    "eval_steps": Range(0, hint="Give 0 to use the value of --logging_steps."),
    "eval_delay": NOT_NEGATIVE,
    "eval_accumulation_steps": COUNT,
    "save_total_limit": Range(hint="Give 0 to keep all checkpoints.", whole=True),
    # memory, data loading, processes
    **dict.fromkeys(("torch_empty_cache_steps", "dataloader_prefetch_factor"), COUNT),
    "dataloader_num_workers": NOT_NEGATIVE_COUNT,
    **dict.fromkeys(("ddp_bucket_cap_mb", "ddp_timeout"), COUNT),
    "local_rank": Range(-1, whole=True),
    # other commands
    **dict.fromkeys(("workers", "runs_per_gpu", "cores_per_run"), COUNT),
    **dict.fromkeys(("texts", "length", "batch_size", "repeats"), COUNT),
    "k": Range(0, MOST_LAYERS, hint="Give numbers of layers to drop, such as 2 4 6.", whole=True),
    "max_loss": NOT_NEGATIVE,
    "seeds": SEED,
    "round": NOT_NEGATIVE_COUNT,
}
"""Flag -> its range. Flags without an entry accept any finite number."""
STRATEGY_OF = {"logging_steps": "logging_strategy", "eval_steps": "eval_strategy", "save_steps": "save_strategy"}
"""Flags that have an effect only if another flag is `steps`."""


def out_of_range(values: Mapping[str, Any]) -> Iterator[UserError]:
    """Yield an error for each number outside its flag's range. Other types are not checked.

    values: flag name -> value, or several values.
    """
    for name, value in values.items():
        if name in STRATEGY_OF and values.get(STRATEGY_OF[name]) != "steps":
            continue
        allowed = RANGES.get(name, FINITE)
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(number, (int, float)) and not isinstance(number, bool) and number not in allowed:
                yield allowed.refusal(f"--{name}", number)


def check_numbers(values: Mapping[str, Any]) -> None:
    """Raise UserError for numbers out of range, one line each."""
    if problems := list(out_of_range(values)):
        raise UserError.joined(problems)
