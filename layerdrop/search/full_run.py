"""The run of the full model, from which a search starts."""

from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria.selection import Selection
from layerdrop.criteria.spec import DropSpec
from layerdrop.runs import describe
from layerdrop.runs.checks import check_run
from layerdrop.runs.fingerprints import Fingerprints
from layerdrop.runs.inputs import RunInputs, needed_splits
from layerdrop.runs.model import select_for
from layerdrop.runs.prerequisites import Prerequisites
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.training_arguments import training_arguments


class FullRun:
    """Spec, options, inputs and record of a run that is not executed. The record has the inputs' fingerprints."""

    def __init__(self, spec: RunSpec, options: Options):
        """Read the inputs. Raises UserError for unreadable inputs, or a spec that does not fit the model."""
        self.spec, self.options, args = spec, options, training_arguments(spec, options)
        self.checkpoint, fingerprints = Checkpoint.open(spec.model, options.hub), Fingerprints()
        check_run(spec, args, self.checkpoint.config)
        splits = list(dict.fromkeys(["train", *needed_splits(spec, options)]))
        self.inputs = RunInputs.read(spec, options, args, self.checkpoint, splits)
        self.record = RunRecord(spec, options.folder, notes=list(options.notes))
        describe.inputs(self.record, self.inputs, Prerequisites(spec, options, fingerprints).teacher)
        self.record.fingerprints = fingerprints.models(spec, options)

    def choose(self, drop: DropSpec) -> Selection:
        """Select the layers that a strategy drops from the full model. Raises UserError."""
        return select_for(drop, self.spec, self.options, self.inputs)
