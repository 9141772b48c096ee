"""Drop layers of a pre-trained encoder, fine-tune it on a task, and record the result: one run.

  layerdrop run --drop_strategy top --drop_k 6
  layerdrop run CONFIG.yaml --seed 1             flags from a file; the command line overrides them
  torchrun --nproc_per_node 2 run_glue.py ...    several GPUs

`layerdrop run` and `python run_glue.py` are the same command.
"""

import argparse
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args, get_origin

from layerdrop.cli.command import recipe
from layerdrop.cli.flags import GROUPS, LIBRARY, LIBRARY_HELP, SECTIONS
from layerdrop.criteria.spec import DropSpec
from layerdrop.errors import UserError
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.store import prior_store
from layerdrop.system.distributed import from_first_process, leaves_group, log
from layerdrop.system.files import LocalPath

METAVARS = {int: "N", float: "X", str: "VALUE", LocalPath: "PATH"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Describe the flags of a run for --help and shell completion; `layerdrop.cli.parsing` parses them."""
    parser.usage = "layerdrop run [CONFIG.yaml] [--flag value ...]"
    for title, (description, names) in SECTIONS.items():
        describe_flags(parser.add_argument_group(title, description), names)
    parser.add_argument("--help_all", action="store_true", help="also show all flags of TrainingArguments")


def describe_flags(section, names: Collection[str], texts: Mapping[str, str] = {}) -> None:
    """Add flags of a run to a section, in the order of `names`. Other names are ignored.

    texts: name -> help text, instead of the flag's own.
    """
    described = {f.name: f for group in GROUPS for f in fields(group)}
    for name in names:
        if f := described.get(name):
            section.add_argument(
                f"--{name}", default=f.default, help=texts.get(name, f.metadata["help"]), **_takes(f.type)
            )
        elif name in LIBRARY:
            value, text = LIBRARY[name]
            section.add_argument(f"--{name}", help=text, **({"metavar": value} if value else {"action": "store_true"}))


def _takes(kind: type) -> dict:
    """Keyword arguments of add_argument for a flag of this type."""
    kinds = (kind,) if get_origin(kind) is Literal else get_args(kind) or (kind,)
    kind = next(kind for kind in kinds if kind is not type(None))
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is list:
        return {"nargs": "+", "metavar": METAVARS[get_args(kind)[0]]}
    return {"action": "store_true"} if kind is bool else {"metavar": METAVARS[kind], "type": kind}


def main(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Execute one run, or preview it with --dry_run. Returns the exit code."""
    if {"-h", "--help", "--help_all"} & set(words):
        if "--help_all" in words:
            _add_library_flags(parser)
        parser.print_help()
        return 0
    from transformers.utils.logging import disable_progress_bar

    from layerdrop.checkpoints import work_offline_unless_reachable
    from layerdrop.cli.parsing import parse
    from layerdrop.finetune.interrupt import Interrupted
    from layerdrop.runs.folder import Locked
    from layerdrop.runs.summary import summary
    from layerdrop.system.process import is_first

    arguments = parse(words)
    if arguments.train.disable_tqdm:
        disable_progress_bar()
    if arguments.needs_hub and not work_offline_unless_reachable():
        arguments.notes.append("the hub cannot be reached; using the local cache")
        if arguments.train.push_to_hub:
            raise UserError("--push_to_hub: the hub cannot be reached. Leave it out, and push the run's folder later.")
    arguments.notes += unused_gpus(arguments.train)
    spec, options = arguments.to_spec()
    instead = " instead of --overwrite_output_dir" * arguments.train.overwrite_output_dir
    try:
        record = (_preview if arguments.drop.dry_run else _execute)(spec, options)
    except Locked as error:
        raise UserError(str(error)) from None
    except Interrupted as stop:
        raise KeyboardInterrupt(f"Add --resume_from_checkpoint{instead} to continue from {stop.checkpoint}.") from None
    except KeyboardInterrupt as stop:
        if str(stop) or spec.train is None or arguments.drop.dry_run:  # of a prerequisite run; without a training
            raise
        raise KeyboardInterrupt(
            f"Repeat the command with --resume_from_checkpoint auto{instead} to continue."
        ) from None
    if is_first():
        print(json.dumps(record.to_dict(), indent=1) if arguments.drop.json else summary(record))
    return 1 if record.status == "failed" else 0


def _preview(spec: RunSpec, options: Options) -> RunRecord:
    """Preview a run, and log its prerequisite trainings and the runs of every other K."""
    record = recipe().preview(spec, options)
    for prerequisite in spec.prerequisites:
        log(f"prerequisite run: {prerequisite.name}")
    for k, _, own in _other_depths(spec, options):
        log(f"K = {k}: {own.folder}")
    return record


@leaves_group
def _execute(spec: RunSpec, options: Options) -> RunRecord:
    """Execute a run and, with elastic depth, the runs of every other K. Returns the run's record, or a failed record.

    The processes of `torchrun` can form only one group, so all these runs share it.
    """
    from layerdrop.runs.folder import check_folder
    from layerdrop.runs.summary import metrics_words

    run, others = recipe().run, list(_other_depths(spec, options))
    for _, other, own in others:  # before the training
        from_first_process(partial(check_folder, other, own))
    record = run(spec, options)
    for k, other, own in others:
        if record.status != "success":
            break
        if (its := run(other, own)).status != "success":
            return its
        log(f"K = {k}: {metrics_words(its)}  {its.folder}")
    return record


def _other_depths(spec: RunSpec, options: Options) -> Iterator[tuple[int, RunSpec, Options]]:
    """Elastic depth: (K, run, options) of each K of the training except `spec` itself. These runs do not train.

    They also include the K of `spec` if `spec` fine-tunes its model again.
    """
    trainer = {name: value for name, value in options.trainer.items() if not name.startswith(("push_to", "hub_"))}
    quiet = replace(options, prior_store=prior_store(options).root, trainer=trainer, resume=None)
    for k in (0, *spec.elastic_k) if spec.elastic_k else ():
        other = replace(spec, drop=DropSpec("top", k) if k else DropSpec(), train=None)
        if other != spec:
            yield k, other, replace(quiet, folder=str(Path(options.folder) / f"k{k}"))


def unused_gpus(train) -> list[str]:
    """A note if the run uses one of several GPUs. train: its TrainArguments."""
    import torch

    if not train.n_gpu or train.world_size > 1 or (n := torch.cuda.device_count()) < 2:
        return []
    return [f"using 1 of {n} GPUs; to use all: torchrun --nproc_per_node {n} run_glue.py ..."]


def _add_library_flags(parser: argparse.ArgumentParser) -> None:
    from layerdrop.cli.parsing import run_parser

    described = {action.dest for action in parser._actions}
    section = parser.add_argument_group("all other flags of TrainingArguments")
    for action in run_parser()._actions:
        if action.dest not in described:
            described.add(action.dest)
            default = getattr(action.default, "value", action.default)
            text = LIBRARY_HELP.get(action.dest, action.help)
            section.add_argument(f"--{action.dest}", help=text, default=default, metavar="VALUE")
