#!/usr/bin/env python
"""Drop layers of a pre-trained encoder, fine-tune it on a GLUE task, record what that did: one run, top to bottom.

    python run_glue.py --drop_strategy top --drop_k 6
    torchrun --nproc_per_node 2 run_glue.py --task_name rte --drop_strategy symmetric --drop_k 4

All flags: --help. What the words mean: README.md.
"""

if __name__ == "__main__":  # before anything imports torch
    import sys

    from layerdrop.cli.command import main as command

    sys.exit(command(["run", *sys.argv[1:]]))

import sys

from layerdrop.cli.command import run_command
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.steps import GlueRun, tell
from layerdrop.system.distributed import leave


def main(argv: list[str] | None = None) -> int:
    """Execute `layerdrop run` with these words, by default those of this process. Returns the exit code: 0 done,
    1 failed, 2 unusable input, 130 stopped by the user."""
    return run_command("run", sys.argv[1:] if argv is None else argv)


def run(spec: RunSpec, options: Options) -> RunRecord:
    """Do one run. Returns its record, which is also in its folder, and says `failed` where the run did not succeed.

    What is done there already is not done again; what is asked for now and missing is made. Raises UserError (unusable
    input), Locked (another process is at this folder) and KeyboardInterrupt (stopped by the user).
    """
    try:
        this = GlueRun(spec, options, run)
        this.read()
        with this.in_folder() as opened:
            if opened.done:
                return this.complete(opened.done, opened.missing)
            with this.recording():
                this.do_first()
                this.select()
                this.load()
                this.fine_tune(opened.resume_from)
                this.evaluate(this.development_splits())
                this.predict(this.test_splits())
        return this.record
    finally:
        leave()


def preview(spec: RunSpec, options: Options) -> RunRecord:
    """The record of a run that is not done: which layers go, their scores, the parameters before and after."""
    this = GlueRun(spec, options)
    this.read(dry_run=True)
    this.select()
    this.plan()
    tell(this.record.notes)
    this.record.status, this.record.seconds = "dry_run", this.clock.total()
    return this.record
