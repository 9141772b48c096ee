"""The run of layerdrop in benchmarks/tracker_studies.py. Workers import this module, and with it torch, only once."""

import time

import run_glue
from benchmarks.tracker_studies import note
from layerdrop.finetune.trainer import FineTuner
from layerdrop.runs.record import RunRecord

RUN = run_glue.run


def noted_run(spec, options):
    """A run of layerdrop that writes into the ledger. Its number is its seed."""
    learn, write = FineTuner.train, RunRecord.write

    def noted_train(self, *args):
        note("train", spec.seed)
        before = time.process_time()
        result = learn(self, *args)
        note("trained", spec.seed)
        note("cpu", round(1000 * (time.process_time() - before)))
        return result

    def noted_write(self):
        if self.status == "success":
            note("success", spec.seed)
        return write(self)

    FineTuner.train, RunRecord.write = noted_train, noted_write
    try:
        return RUN(spec, options)
    finally:
        FineTuner.train, RunRecord.write = learn, write
