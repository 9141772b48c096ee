"""Parse a command line into checked Arguments."""

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import string_to_bool

from layerdrop.checkpoints import is_local
from layerdrop.cli.arguments import ALL_GROUPS, Flags
from layerdrop.cli.checks import check, idle_flags
from layerdrop.cli.command import OneLineErrors, flag_name, no_such_flag
from layerdrop.cli.to_spec import to_spec
from layerdrop.data.hub import is_folder
from layerdrop.errors import UserError
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.sweeps.study import AXES
from layerdrop.system.faults import fault
from layerdrop.system.files import LocalPath, read_json
from layerdrop.system.limits import out_of_range
from layerdrop.system.process import check_launcher, has_bf16
from layerdrop.system.settings import CONFIGURATIONS, read_settings
from layerdrop.system.text import one_line

ID_FLAGS = ("drop_layers", "keep_layers", "drop_order", "freeze_layers")
DICTIONARIES = TrainingArguments._VALID_DICT_FIELDS
"""Flags that take a JSON object."""
OR_FILE = ("accelerator_config", "deepspeed", "fsdp_config")
"""Flags that take a JSON object or the path of a JSON file."""
DASHED = re.compile("[‐‑‒–—−]+([A-Za-z].*)", re.DOTALL)
"""A flag with the characters that word processors write instead of hyphens."""
LISTS = {
    **dict.fromkeys((*ID_FLAGS, "remove_layers"), "layer ids without spaces, as 9,10,11"),
    "text_columns": "two columns without a space, as a,b",
}
"""Flag whose value is a list -> how to write the list."""
RESUME = {"true": "last", "last": "last", "auto": "auto", "false": None, "none": None, "": None}
"""Values of --resume_from_checkpoint other than folders -> Options.resume."""
RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "no_cuda": "use_cpu",
    **{f"{split}_split_name": f"{split}_split" for split in ("train", "validation", "test")},
    "text_column_names": "text_columns",
    "label_column_name": "label_column",
}
"""Flags of the papers' scripts, of older versions of run_glue.py and of the library's run_classification.py -> the
current flag."""
WITHOUT_EFFECT = {
    "model_type": "the checkpoint's configuration contains the type",
    "do_lower_case": "the checkpoint's tokenizer contains this setting",
    "local_rank": "torchrun sets the environment variable LOCAL_RANK",
}
"""Flags of the same scripts and of old launchers that are accepted without effect -> the reason."""
MISNOMERS = {
    **dict.fromkeys(("model", "models", "model_path", "checkpoint"), "--model_name_or_path"),
    **dict.fromkeys(("epochs", "num_epochs"), "--num_train_epochs"),
    **dict.fromkeys(("batch_size", "train_batch_size"), "--per_device_train_batch_size"),
    **{"dataset": "--dataset_name", "train": "--do_train or --train_file", "resume": "--resume_from_checkpoint"},
    **dict.fromkeys(("alpha", "temperature"), "--distill_weight and --distill_temperature"),
    **{
        "lr": "--learning_rate",
        "k": "--drop_k",
        "strategy": "--drop_strategy",
        "layers": "--drop_layers or --keep_layers",
        "device": "--use_cpu",
    },
    **{"first_num_train_epochs": "--start_num_train_epochs or --teacher_num_train_epochs"},
    **{"first_learning_rate": "--start_learning_rate or --teacher_learning_rate"},
}
"""Names in other tools, and common mistakes -> the correct flag."""


def _json_object(text: str) -> str:
    """Check that the text is a JSON object. Returns the text, which the library parses."""
    try:
        if isinstance(json.loads(text), dict):
            return text.strip()
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"not a JSON object: '{text}'. Write it as '{{\"name\": value}}'")


def _json_object_or_file(text: str) -> str:
    if text.lstrip().startswith("{"):
        return _json_object(text)
    path = LocalPath(text)
    if not (path.endswith(".json") or Path(path).is_file()):
        return _json_object(text)
    try:
        if isinstance(read_json(path), dict):
            return path
    except OSError as error:
        raise argparse.ArgumentTypeError(fault(error)) from None
    except UserError as error:  # a pointer of Git LFS
        raise argparse.ArgumentTypeError(str(error)) from None
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"the file {path} holds no JSON object. Correct it")


class Parser(OneLineErrors, HfArgumentParser):
    """The library's parser of all flags of a run."""

    def __init__(self, prog: str):
        super().__init__(ALL_GROUPS, prog=prog, allow_abbrev=False, add_help=False)
        for action in self._actions:
            if action.type is string_to_bool and action.nargs is None:  # `bool | None`: --disable_tqdm alone is True
                action.nargs, action.const = "?", True
            if action.dest in DICTIONARIES:
                action.type = _json_object_or_file if action.dest in OR_FILE else _json_object


@cache
def run_parser(prog: str = "layerdrop run") -> Parser:
    """The parser of a run, built once. prog: the command that errors name."""
    return Parser(prog)


@dataclass
class Arguments(Flags):
    """The checked flags of one run."""

    notes: list[str] = field(default_factory=list)
    """Notes to the user: translated flags, flags without effect."""

    def to_spec(self) -> tuple[RunSpec, Options]:
        """The run's identity and its options. Raises UserError if a searched strategy lacks its search result."""
        return to_spec(self, tuple(self.notes))

    @property
    def gives_precision(self) -> bool:
        """Whether the precision was given, instead of chosen for this machine."""
        return bool({"precision", "bf16", "fp16"} & self.given)

    @property
    def needs_hub(self) -> bool:
        """Whether a model, a tokenizer or the data is not local."""
        teacher = None if self.teacher.teacher == "auto" else self.teacher.teacher
        names = (self.model.model_name_or_path, self.model.tokenizer_name, self.drop.score_on, teacher)
        dataset = self.data.dataset_name
        hub_data = bool(self.splits) and (not is_folder(dataset) if dataset else self.data.source == "hub")
        return hub_data or self.train.push_to_hub or any(name and not is_local(name) for name in names)


def parse_settings(settings: Mapping[str, Any], words: Sequence[str] = ()) -> Arguments:
    """Parse settings (flag name -> value) and the words of a command line. The words override the settings."""
    return parse([*flags_of(settings), *words])


def parse(argv: Sequence[str], prog: str = "layerdrop run") -> Arguments:
    """Parse an optional YAML or JSON file and flags. The flags override the file.

    prog: the command whose --help describes the flags. Raises one UserError for all problems, one line each.
    """
    check_launcher()
    notes: list[str] = []
    words = list(argv)
    if words and not words[0].startswith("-") and words[0].endswith(CONFIGURATIONS):
        words = flags_of(read_settings(words[0]), f"{words[0]}: ") + words[1:]
    typed, words = words, _translate(words, notes)
    namespace = _namespace(words, prog, typed)
    given = frozenset(flag_name(word) for word in words if word.startswith("--"))
    notes += _choose_steps(namespace, given)
    notes += _choose_precision(namespace, given)
    if "disable_tqdm" not in given:
        namespace.disable_tqdm = not sys.stderr.isatty()
    try:
        groups = [kind(**{f.name: getattr(namespace, f.name) for f in fields(kind) if f.init}) for kind in ALL_GROUPS]
    except Exception as error:  # the library's own checks of its flags
        problems = list(out_of_range(vars(namespace))) or [UserError(fault(error) or one_line(str(error)))]
        raise UserError.joined(problems) from error
    arguments = Arguments(*groups, given=given, notes=notes)
    arguments.train.output_dir = namespace.output_dir  # None instead of the library's default
    check(arguments)
    notes += idle_flags(arguments)
    return arguments


def flags_of(settings: Mapping[str, Any], where: str = "") -> list[str]:
    """Convert settings (flag name -> value) to the words of a command line, without None values.

    where: beginning of an error message.
    """
    if nested := [name for name, value in settings.items() if isinstance(value, dict) and name not in DICTIONARIES]:
        raise UserError(f"{where}'{nested[0]}' contains nested settings. Write every flag on a line of its own.")
    actions = {action.dest: action for action in run_parser()._actions}
    several = {name for name, action in actions.items() if action.nargs in ("+", "*")}
    words = []
    for name, value in settings.items():
        if isinstance(value, list) and name in several:
            words += [f"--{name}", *map(str, value)]
        elif isinstance(value, list):
            action = actions.get(str(name).replace("-", "_"))
            if len(value) > 1 and action and action.type in (int, float) and not action.nargs:
                raise UserError(f"{where}'{name}' takes one value. To vary it, use the 'grid' of a study.")
            words.append(f"--{name}={','.join(map(str, value))}")
        elif value is not None:
            words.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    return words


def _translate(words: list[str], notes: list[str]) -> list[str]:
    """Replace flags of older scripts, and append a note for each. Add the default value of --resume_from_checkpoint."""
    out: list[str] = []
    rest = iter(range(len(words)))
    for i in rest:
        _, equals, value = words[i].partition("=")
        name = flag_name(words[i]) if words[i].startswith("--") else ""
        following = None if equals or i + 1 == len(words) or words[i + 1].startswith("--") else words[i + 1]
        if name in WITHOUT_EFFECT or (name == "remove_layers" and (value if equals else following) == ""):
            if name in WITHOUT_EFFECT:
                notes.append(f"--{name} has no effect: {WITHOUT_EFFECT[name]}")
            if following is not None:
                next(rest)
        elif name in RENAMED:
            notes.append(f"--{name} is --{RENAMED[name]} here")
            out.append(f"--{RENAMED[name]}{equals}{value}")
        else:
            out.append(words[i])
            if name == "resume_from_checkpoint" and not equals and following is None:
                out.append("last")
    return out


def _advice(parser: argparse.ArgumentParser, words: Sequence[str], stray: str) -> str:
    """The advice about a word that is neither a flag nor the value of a flag."""
    if stray.endswith(CONFIGURATIONS):
        return "Write the name of a configuration file before all flags"
    if dashed := DASHED.fullmatch(stray):
        return f"Write it with two hyphens: --{dashed[1]}"
    flag = _flag_before(parser, words, stray)
    name = flag_name(flag)
    if name in LISTS:
        return f"Write {LISTS[name]}"
    if not name or "=" in flag:  # settings of a file are such words, too
        return "Write --flag value, for example --seed 1"
    if axes := [axis for axis, flag in AXES.items() if flag == name]:
        return f"--{name} takes one value. For several values, use --{axes[0]} of layerdrop sweep"
    return f"--{name} takes one value"


def _flag_before(parser: argparse.ArgumentParser, words: Sequence[str], stray: str) -> str:
    """The flag, or `--flag=value`, whose values end directly before a stray word. Empty if there is none."""
    flag, room = "", 0.0
    """room: number of values that the flag takes yet."""
    for word in words:
        if word.startswith("--"):
            flag, action = word, parser._option_string_actions.get(word)
            several, none = action and action.nargs in ("+", "*"), "=" in word or (action and action.nargs == 0)
            room = 0 if none else math.inf if several else 1
        elif room:
            room -= 1
        elif word == stray:
            return flag
    return ""


def _namespace(words: list[str], prog: str, typed: Sequence[str]) -> argparse.Namespace:
    """Parse the words. typed: the words before `_translate`, for messages."""
    parser = run_parser(prog)
    namespace, unknown = parser.parse_known_args(words)
    if flags := [word for word in unknown if word.startswith("-")]:
        known = [option for action in parser._actions for option in action.option_strings]
        raise UserError.joined(no_such_flag(word, known, "layerdrop run --help_all", MISNOMERS) for word in flags)
    if unknown:
        raise UserError(f"'{unknown[0]}' is not the value of a flag. {_advice(parser, typed, unknown[0])}.")
    for action in parser._actions:
        if getattr(namespace, action.dest, None) != "" or action.dest in ID_FLAGS:
            continue
        if action.default is None:  # scripts pass an unset optional value as an empty string
            setattr(namespace, action.dest, None)
        elif action.type is LocalPath:
            raise UserError("is empty. Give a folder or a name on the hub, or leave it out.", f"--{action.dest}")
    resume = namespace.resume_from_checkpoint
    namespace.resume_from_checkpoint = RESUME.get(str(resume).lower(), resume)
    return namespace


def _choose_steps(namespace: argparse.Namespace, given: frozenset[str]) -> list[str]:
    """Train and evaluate by default. Evaluate during training only if the run trains and evaluates. Returns notes."""
    if not {"do_train", "do_eval", "do_predict"} & given:
        namespace.do_train = namespace.do_eval = True
    if namespace.do_train and namespace.do_eval:
        return []
    idle = "eval_strategy" in given and namespace.eval_strategy != "no"
    namespace.eval_strategy = "no"  # the library would turn do_eval on
    if namespace.do_train and namespace.load_best_model_at_end:
        raise UserError("needs evaluations to select a checkpoint. Add --do_eval.", "--load_best_model_at_end")
    namespace.load_best_model_at_end = False
    return ["--eval_strategy has no effect without --do_train and --do_eval"] if idle else []


def _choose_precision(namespace: argparse.Namespace, given: frozenset[str]) -> list[str]:
    """Replace `auto`, and set the library's own flags accordingly. Returns notes for the user.

    --bf16 False turns `auto` into fp32. fp16 without a GPU becomes fp32. Raises UserError for contradictions.
    """
    flag = f"--precision {namespace.precision}"
    for name in ("bf16", "fp16"):
        if getattr(namespace, name):
            if namespace.precision not in ("auto", name):
                raise UserError(f"{flag} and --{name} contradict each other. Give one of them.")
            namespace.precision, flag = name, f"--{name}"
        elif name in given and namespace.precision == name:
            raise UserError(f"{flag} and --{name} False contradict each other. Give one of them.")
    gpu = torch.cuda.is_available() and not namespace.use_cpu
    if namespace.precision == "auto":
        namespace.precision = "bf16" if has_bf16(namespace.use_cpu) and "bf16" not in given else "fp32"
    notes = []
    if namespace.precision == "fp16" and not gpu:
        namespace.precision = "fp32"
        notes.append(f"{flag}: needs a GPU; the run is in fp32")
    namespace.bf16, namespace.fp16 = namespace.precision == "bf16", namespace.precision == "fp16"
    if namespace.logging_nan_inf_filter is None:
        namespace.logging_nan_inf_filter = namespace.fp16
    if not torch.accelerator.is_available():
        namespace.use_cpu = True  # the library requires it for bf16 and for several processes
    return notes
