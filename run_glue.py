#!/usr/bin/env python
"""Drop layers of a pre-trained encoder, fine-tune it on a GLUE task, record what that did: one run, top to bottom.

    python run_glue.py --drop_strategy top --drop_k 6
    torchrun --nproc_per_node 2 run_glue.py --task_name rte --drop_strategy symmetric --drop_k 4

All flags: --help. What the words mean: README.md.
"""

if __name__ == "__main__":  # before anything imports torch
    import signal

    from layerdrop.system.process import prepare_process

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends without a traceback
    prepare_process()

import gc
import json
import signal
import sys

from layerdrop.checkpoints import work_offline_unless_reachable
from layerdrop.errors import UserError
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.steps import GlueRun, say, tell
from layerdrop.runs.store import Locked
from layerdrop.runs.summary import summary
from layerdrop.system.distributed import is_first, leave


def main(argv: list[str] | None = None) -> int:
    """argv: the words of the command line; None: this process's. The exit code: 0 done, 1 failed, 2 unusable input, 130
    stopped by the user."""
    from layerdrop.cli import parse

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        if arguments.needs_hub and not work_offline_unless_reachable():
            arguments.notes.append("no hub can be reached; what is in the local cache is used")
            if arguments.train.push_to_hub:
                raise UserError("--push_to_hub: no hub can be reached. Leave it out, and push the run's folder later.")
        spec, options = arguments.to_spec()
        record = preview(spec, options) if arguments.dry_run else run(spec, options)
        if is_first():
            print(json.dumps(record.to_dict(), indent=1) if arguments.json else summary(record))
        return 1 if record.status == "failed" else 0
    except (UserError, Locked) as error:
        say("\n".join(f"error: {line}" for line in str(error).splitlines()))
        return 2
    except KeyboardInterrupt as stop:
        checkpoint = getattr(stop, "checkpoint", None)
        how = f"go on with --resume_from_checkpoint (from {checkpoint})" if checkpoint else str(stop)
        say(f"stopped; {how}" if how else "stopped")
        return 130


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


if __name__ == "__main__":
    code = main()
    gc.freeze()  # the interpreter would take apart at its end what was imported
    sys.exit(code)
