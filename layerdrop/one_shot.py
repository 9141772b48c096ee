"""Scores of sets of layers from one training: of a model that learnt with layers left out at random, without each set.

Weight sharing, as in one-shot architecture search, by LayerDrop (Fan et al. 2020).
"""

from collections.abc import Sequence
from dataclasses import replace

from tqdm.auto import tqdm
from transformers import PreTrainedModel

from layerdrop.checkpoints import Checkpoint
from layerdrop.errors import UserError
from layerdrop.loading import load_classifier
from layerdrop.runs.record import RunRecord
from layerdrop.runs.store import holds_model
from layerdrop.search import Ids
from layerdrop.spec import ModelSpec, RunSpec
from layerdrop.steps import GlueRun
from layerdrop.surgery import without
from layerdrop.trials import Trials

RATE = 0.25
"""Of LayerDrop, in the training that all sets share."""


def shared_training(spec: RunSpec) -> RunSpec:
    """The run in full depth whose model scores sets: `spec` with LayerDrop."""
    return replace(spec, train=replace(spec.train, layerdrop_rate=RATE))


class OneShot:
    """An Evaluate of layerdrop.search: a pass over the held-out rows for each set, of a model of `shared_training`."""

    def __init__(self, whole: GlueRun, trials: Trials):
        """whole: the run in full depth, its inputs read. trials: does the shared trainings, one a seed, and keeps their
        models. Sets are compared by its metric, or else by their loss, with the sign turned round."""
        self.metric, self.trials = trials.select_on or "loss", trials
        records = trials.train(shared_training(whole.spec))
        self.development = whole.development(["validation"])
        self.models = [_model(whole, record) for record in records]
        self.passes = 0

    def __call__(self, sets: Sequence[Ids]) -> list[tuple[float, ...]]:
        """One score a model for each set."""
        self.passes += len(sets) * len(self.models)
        bar = tqdm(sets, desc="score sets", delay=2, leave=False, disable=None)
        return [tuple(self._score(model, ids) for model in self.models) for ids in bar]

    def _score(self, model: PreTrainedModel, ids: Ids) -> float:
        with without(model, sorted(ids)):
            value = self.development.evaluate(model, "validation").metrics[self.metric]
        return -value if self.metric == "loss" else value

    @property
    def cost(self) -> dict[str, float]:
        """That of all trainings, and `passes` over the held-out rows."""
        return self.trials.cost | {"passes": self.passes}


def _model(whole: GlueRun, record: RunRecord) -> PreTrainedModel:
    if not holds_model(record.folder):
        raise UserError(f"{record.folder}: this run is done, but its model was not kept. Delete the folder.")
    checkpoint = Checkpoint.open(ModelSpec(record.folder), whole.checkpoint.hub)
    model, _ = load_classifier(checkpoint, labels=whole.labels, replace_head=False)
    return model.to(whole.args.device)
