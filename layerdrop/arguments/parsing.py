"""From the words of a command line to checked Arguments."""

import argparse
import re
import sys
from dataclasses import fields
from difflib import get_close_matches
from functools import cache

import torch
from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from layerdrop.arguments.checks import check, idle_flags
from layerdrop.arguments.files import flags_of, read_settings
from layerdrop.arguments.groups import GROUPS
from layerdrop.arguments.older import translate
from layerdrop.arguments.whole import Arguments
from layerdrop.cpu import has_bf16
from layerdrop.errors import UserError

COMMON = (
    "do_train do_eval do_predict num_train_epochs max_steps gradient_accumulation_steps optim weight_decay "
    "warmup_steps lr_scheduler_type max_grad_norm seed resume_from_checkpoint load_best_model_at_end report_to use_cpu"
).split()
"""The library's flags that --help shows."""


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
        text = "Show every flag: those of the library's TrainingArguments too."
        self.add_argument("--help_all", nargs=0, action=_HelpAll, help=text)
        for action in self._actions:
            if action.type is string_to_bool and action.nargs is None:  # `bool | None`: --disable_tqdm alone means yes
                action.nargs, action.const = "?", True

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


def parse(argv: list[str]) -> Arguments:
    """Flags (after an optional YAML or JSON file, which they override) -> checked Arguments.

    Raises UserError; everything that is wrong is in its message, one line each.
    """
    notes: list[str] = []
    if argv and argv[0].endswith((".yaml", ".yml", ".json")) and not argv[0].startswith("-"):
        argv = flags_of(read_settings(argv[0])) + argv[1:]
    argv = translate(argv, notes)
    parser = _parser()
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        raise UserError(
            "\n".join(_unknown_word(word, parser) for word in unknown if word.startswith("-"))
            or f"'{unknown[0]}' belongs to no flag. A configuration file comes first: run_glue.py X.yaml --flag value."
        )
    given = frozenset(word.partition("=")[0][2:].replace("-", "_") for word in argv if word.startswith("--"))
    if not {"do_train", "do_eval", "do_predict"} & given:
        namespace.do_train = namespace.do_eval = True
    if not namespace.do_eval or not namespace.do_train:
        namespace.eval_strategy = "no"  # the library would turn do_eval on
    if "disable_tqdm" not in given:
        namespace.disable_tqdm = not sys.stderr.isatty()
    _choose_precision(namespace)
    wanted_output_dir = namespace.output_dir
    try:
        groups = [kind(**{f.name: getattr(namespace, f.name) for f in fields(kind) if f.init}) for kind in GROUPS]
    except (ValueError, ImportError, RuntimeError) as error:
        raise UserError(" ".join(str(error).split())) from None
    arguments = Arguments(*groups, given=given, notes=notes)
    check(arguments)
    notes += idle_flags(arguments)
    if arguments.train.n_gpu and arguments.train.world_size == 1 and (n := torch.cuda.device_count()) > 1:
        notes.append(f"one of {n} GPUs is used; for all: torchrun --nproc_per_node {n} run_glue.py ...")
    if wanted_output_dir is None:
        arguments.train.output_dir = arguments.default_output_dir()
    return arguments


def _unknown_word(word: str, parser: Parser) -> str:
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    name = word.partition("=")[0]
    near = get_close_matches(name.replace("-", "_").replace("__", "--", 1), known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{name}: no such flag.{hint} All flags: run_glue.py --help_all."


def _choose_precision(namespace) -> None:
    """Settle `auto`, and make the library's own flags say the same."""
    if namespace.bf16 or namespace.fp16:
        asked = "bf16" if namespace.bf16 else "fp16"
        if namespace.precision not in ("auto", asked):
            raise UserError(f"--precision {namespace.precision} and --{asked} contradict each other. Give one of them.")
        namespace.precision = asked
    gpu = torch.cuda.is_available() and not namespace.use_cpu
    if namespace.precision == "auto":
        fast = torch.cuda.is_bf16_supported(including_emulation=False) if gpu else has_bf16()
        namespace.precision = "bf16" if fast else "fp32"
    namespace.bf16, namespace.fp16 = namespace.precision == "bf16", namespace.precision == "fp16"
    if namespace.logging_nan_inf_filter is None:
        namespace.logging_nan_inf_filter = namespace.fp16
    if namespace.fp16 and not gpu:
        raise UserError("--precision fp16: needs a GPU. Allowed on this machine: auto, fp32, bf16.")
    if not torch.accelerator.is_available():
        namespace.use_cpu = True  # the library needs to be told, for bf16 and for several processes
