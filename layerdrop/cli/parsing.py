"""From the words of a command line to checked Arguments."""

import argparse
import itertools
import json
import re
import sys
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import torch
from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from layerdrop.checkpoints import is_local
from layerdrop.cli.checks import check, idle_flags
from layerdrop.cli.flags import GROUPS, Flags
from layerdrop.cli.legacy import TYPED, translate
from layerdrop.cli.limits import out_of_range
from layerdrop.cli.settings_files import DICTIONARIES, flags_of, read_settings
from layerdrop.cli.to_spec import to_spec
from layerdrop.errors import UserError
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.system.files import LocalPath
from layerdrop.system.process import has_bf16
from layerdrop.system.text import one_line

COMMON = (
    "do_train do_eval do_predict num_train_epochs max_steps gradient_accumulation_steps optim weight_decay "
    "warmup_steps lr_scheduler_type max_grad_norm seed load_best_model_at_end report_to use_cpu"
).split()
"""The library's flags that --help shows."""
ID_FLAGS = ("drop_layers", "remove_layers", "keep_layers", "drop_order", "freeze_layers")
FROM_FILE = ("accelerator_config", "deepspeed", "fsdp_config")
"""Flags that take a JSON object or the path of a JSON file."""
RESUME = {"true": "last", "last": "last", "auto": "auto", "false": None, "none": None, "": None}
"""Words of --resume_from_checkpoint that are no folder -> Options.resume."""


def _settings(text: str) -> str:
    """Check that the text is a JSON object. Returns the text, which the library parses."""
    try:
        if isinstance(json.loads(text), dict):
            return text.strip()
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"not a JSON object: '{text}'. Write it as '{{\"name\": value}}'")


def _settings_or_file(text: str) -> str:
    """A JSON object as text, or the path of a JSON file."""
    path = LocalPath(text)
    return path if Path(path).is_file() else _settings(text)


class _Help(argparse.HelpFormatter):
    """One line for a flag's name and what it takes, then its text and its default, if it has one."""

    def _format_action_invocation(self, action) -> str:
        names = [name for name in action.option_strings if "-" not in name[2:] or "_" not in action.dest]
        if action.nargs == 0 or action.type is string_to_bool:
            return ", ".join(names)
        choices = "{" + ",".join(map(str, action.choices or ())) + "}"
        takes = choices if 2 < len(choices) < 60 else {int: "N", float: "X"}.get(action.type, "VALUE")
        return f"{', '.join(names)} {takes}"

    def _get_help_string(self, action) -> str:
        text = action.help or ""
        return text if action.default in (None, False, "==SUPPRESS==") else f"{text} (default: %(default)s)"


class _HelpAll(argparse.Action):
    """Print every flag, and stop."""

    def __call__(self, parser, *args, **kwargs):
        parser.all_flags = True
        parser.print_help()
        parser.exit()


class Parser(HfArgumentParser):
    """The library's parser with a --help that can be read; what is wrong becomes one UserError instead of its usage."""

    all_flags = False
    """Whether the help shows the library's flags too."""

    def __init__(self):
        super().__init__(
            GROUPS,
            allow_abbrev=False,
            formatter_class=_Help,
            usage="run_glue.py [CONFIG.yaml] [--flag value ...]",
            description="Drop layers of a pre-trained encoder, fine-tune it on a GLUE task, record what that did.",
        )
        text = "Show every flag, including the library's TrainingArguments."
        self.add_argument("--help_all", nargs=0, action=_HelpAll, help=text)
        for action in self._actions:
            if action.type is string_to_bool and action.nargs is None:  # `bool | None`: --disable_tqdm alone means yes
                action.nargs, action.const = "?", True
            if action.dest in DICTIONARIES:
                action.type = _settings_or_file if action.dest in FROM_FILE else _settings

    def format_help(self) -> str:
        """One section for each group of flags."""
        actions = {action.dest: action for action in reversed(self._actions)}  # --X, not --no_X
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for kind in GROUPS:
            own = [name for name in vars(kind)["__annotations__"] if name in actions]
            formatter.start_section(kind.__name__.removesuffix("Arguments").lower())
            formatter.add_text(kind.__doc__)
            formatter.add_arguments(actions.pop(name) for name in own)
            formatter.end_section()
        formatter.start_section("others")
        shown = list(actions) if self.all_flags else COMMON
        formatter.add_arguments(actions[name] for name in (*shown, "help", "help_all") if name in actions)
        formatter.end_section()
        return formatter.format_help()

    def error(self, message: str):
        """Raise UserError with argparse's message, put in our order: flag, value received, what is allowed."""
        message = re.sub(r"^argument (--\w+)(/--[\w-]+)*", r"\1", message)
        message = message.replace("invalid int value:", "not a whole number:").replace(
            "invalid float value:", "not a number:"
        )
        raise UserError(f"{message.rstrip('.')}. See run_glue.py --help.")


@cache
def _parser() -> Parser:
    return Parser()


def flag_names() -> set[str]:
    """The names of all flags."""
    return {action.dest for action in _parser()._actions}


@dataclass
class Arguments(Flags):
    """All flags of one run, checked."""

    notes: list[str] = field(default_factory=list)
    """What the user is told: translated legacy flags, flags without effect."""

    def to_spec(self) -> tuple[RunSpec, Options]:
        """The run's identity and its options. Raises UserError where `greedy` or `optimal` lack a search's result."""
        return to_spec(self, tuple(self.notes))

    @property
    def dry_run(self) -> bool:
        """Whether nothing is to be trained or written."""
        return self.drop.dry_run

    @property
    def json(self) -> bool:
        """Whether to print JSON."""
        return self.drop.json

    @property
    def needs_hub(self) -> bool:
        """Whether a model, tokenizer or data set is named that is no local folder."""
        teacher = None if self.teacher.teacher == "auto" else self.teacher.teacher
        names = (self.model.model_name_or_path, self.model.tokenizer_name, self.drop.score_on, teacher)
        hub_data = self.data.source == "hub" and bool(self.splits)
        return hub_data or self.train.push_to_hub or any(name and not is_local(name) for name in names)


def parse(argv: list[str]) -> Arguments:
    """Flags (after an optional YAML or JSON file, which they override) -> checked Arguments.

    Raises UserError; its message names everything that is wrong, one line each.
    """
    notes: list[str] = []
    words = _with_file(argv)
    _refuse_separate_ids(words)
    words = translate(words, notes)
    namespace = _namespace(words)
    given = frozenset(_name(word) for word in words if word.startswith("--"))
    _choose_steps(namespace, given)
    notes += _choose_precision(namespace, given)
    if "disable_tqdm" not in given:
        namespace.disable_tqdm = not sys.stderr.isatty()
    try:
        groups = [kind(**{f.name: getattr(namespace, f.name) for f in fields(kind) if f.init}) for kind in GROUPS]
    except Exception as error:  # any error of the library's checks concerns its flags
        raise UserError("\n".join(out_of_range(vars(namespace))) or one_line(str(error))) from error
    arguments = Arguments(*groups, given=given, notes=notes)
    arguments.train.output_dir = namespace.output_dir  # None instead of the library's own default
    check(arguments)
    notes += idle_flags(arguments)
    if arguments.train.n_gpu and arguments.train.world_size == 1 and (n := torch.cuda.device_count()) > 1:
        notes.append(f"one of {n} GPUs is used; for all: torchrun --nproc_per_node {n} run_glue.py ...")
    return arguments


def _with_file(argv: list[str]) -> list[str]:
    """The words of a command line, with those of its configuration file in front."""
    if not argv or argv[0].startswith("-") or not argv[0].endswith((".yaml", ".yml", ".json")):
        return argv
    return flags_of(read_settings(argv[0])) + argv[1:]


def _name(word: str) -> str:
    return word.partition("=")[0][2:].replace("-", "_")


def _refuse_separate_ids(words: list[str]) -> None:
    """Raise UserError for layer ids with spaces between them, as separate words."""
    for i, word in enumerate(words):
        if word.startswith("--") and _name(word) in ID_FLAGS:
            ids = [word.partition("=")[2]] if "=" in word else []
            ids += itertools.takewhile(lambda w: not w.startswith("--"), words[i + 1 :])
            if len(ids) > 1:
                joined = ",".join(part for text in ids for part in text.split(",") if part)
                raise UserError(f"--{_name(word)} {' '.join(ids)}: ids with spaces. Write them as {joined}.")


def _namespace(words: list[str]) -> argparse.Namespace:
    parser = _parser()
    namespace, unknown = parser.parse_known_args(words)
    if unknown:
        raise UserError(
            "\n".join(_unknown_word(word, parser) for word in unknown if word.startswith("-"))
            or f"'{unknown[0]}' belongs to no flag. A configuration file comes first: run_glue.py X.yaml --flag value."
        )
    for action in parser._actions:
        if getattr(namespace, action.dest, None) != "" or action.dest in ID_FLAGS:
            continue
        if action.default is None:  # scripts pass an unset optional value as an empty string
            setattr(namespace, action.dest, None)
        elif action.type is LocalPath:
            raise UserError(f"--{action.dest}: is empty. Give a folder or a name on the hub, or leave it out.")
    resume = namespace.resume_from_checkpoint
    namespace.resume_from_checkpoint = RESUME.get(str(resume).lower(), resume)
    return namespace


def _choose_steps(namespace: argparse.Namespace, given: frozenset[str]) -> None:
    """Train and evaluate if nothing is asked for; evaluate while training only where both are asked for."""
    if not {"do_train", "do_eval", "do_predict"} & given:
        namespace.do_train = namespace.do_eval = True
    if namespace.do_train and namespace.do_eval:
        return
    namespace.eval_strategy = "no"  # the library would turn do_eval on
    if namespace.do_train and namespace.load_best_model_at_end:
        raise UserError("--load_best_model_at_end: needs evaluations to choose by. Add --do_eval.")
    namespace.load_best_model_at_end = False


def _choose_precision(namespace: argparse.Namespace, given: frozenset[str]) -> list[str]:
    """Replace `auto`, and set the library's own flags accordingly. Returns notes for the user.

    --bf16 False turns `auto` to fp32; fp16 without a GPU is fp32. Raises UserError for contradictions.
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
        notes.append(f"{flag}: this needs a GPU; the run is in fp32")
    namespace.bf16, namespace.fp16 = namespace.precision == "bf16", namespace.precision == "fp16"
    if namespace.logging_nan_inf_filter is None:
        namespace.logging_nan_inf_filter = namespace.fp16
    if not torch.accelerator.is_available():
        namespace.use_cpu = True  # the library asks for it with bf16 and with several processes
    return notes


def _unknown_word(word: str, parser: Parser) -> str:
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    name = word.partition("=")[0]
    near = get_close_matches(name.replace("-", "_").replace("__", "--", 1), known, n=1)
    hint = TYPED.get(_name(word), near[0] if near else "")
    if hint.startswith("--"):
        hint = f"Did you mean {hint}?"
    hint = hint and f" {hint}"
    return f"{name}: no such flag.{hint} All flags: run_glue.py --help_all."
