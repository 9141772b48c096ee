"""Context managers that make training and prediction faster. On exit, the model is restored.

Results differ only by rounding, and by different dropout draws from the same distribution.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
from transformers import PreTrainedModel, TrainingArguments

from layerdrop.finetune.speedups.dropout import cheap_dropout
from layerdrop.finetune.speedups.first_token import first_token_only, has_first_token_classifier
from layerdrop.finetune.speedups.no_sync import no_sync
from layerdrop.finetune.speedups.vocabulary import can_train_used_rows, used_rows


@contextmanager
def speedups(
    model: PreTrainedModel,
    args: TrainingArguments,
    *,
    train: bool,
    no_speedups: bool = False,
    used_ids: np.ndarray | None = None,
) -> Iterator[None]:
    """Enable every speed-up that suits the model, the device of `args` and the optimizer. Disable all of them on exit.

    train: False enables only the speed-ups for evaluation. no_speedups: enable none. used_ids: all token ids of the
    training data, in any shape; None: train every row of the embedding.
    """
    with ExitStack() as stack:
        if not no_speedups:
            if has_first_token_classifier(model):
                stack.enter_context(first_token_only(model))
            if train and used_ids is not None and can_train_used_rows(model, args):
                stack.enter_context(used_rows(model, used_ids))
            if args.device.type != "cpu":
                stack.enter_context(no_sync(model, args))
            elif train:
                stack.enter_context(cheap_dropout(model))
        yield
