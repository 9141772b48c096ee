"""The command `layerdrop`, and shared behavior of its subcommands: error lines, exit codes, Ctrl-C.

Imports neither torch nor transformers nor numpy, so that --help and shell completion are fast. Each subcommand is a
module `layerdrop.cli.NAME` with `add_flags(parser)` and `main(parser, words)`, which imports what it needs.
"""

import argparse
import gc
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module

from layerdrop.errors import UserError, unknown
from layerdrop.system.faults import UNUSABLE_PATH, fault
from layerdrop.system.process import STOPPED, handle_interrupts, is_first, lost_output, prepare_process
from layerdrop.system.text import cut_middle, printable

COMMANDS = {
    "run": "drop layers, fine-tune and evaluate: one run (same as python run_glue.py)",
    "cut": "drop layers of a checkpoint without training, and write a checkpoint of the same class",
    "sweep": "execute the missing, failed and incomplete runs of a study",
    "search": "select the layers to drop by training and comparing reduced models",
    "report": "make tables, figures and a web page from finished runs",
    "compare": "show finished runs of one task side by side",
    "layers": "compare criteria and analyze the layers of models",
    "choose-k": "find the largest number of layers that can be dropped within a maximum loss",
    "cost": "measure parameters, FLOPs, time and memory of models",
    "export": "export the model of a run as safetensors or ONNX",
    "predict": "predict with a fine-tuned or exported model",
}
WITH_FLAGS_OF_RUNS = ("run", "sweep", "search", "choose-k", "layers")
"""Commands that take the flags of a run, too."""
MISNOMERS = {
    "layerdrop cut": {"k": "--drop_k"},
    "layerdrop cost": {"drop_k": "--k"},
    "layerdrop predict": {"test_file": "the file without a flag"},
    "layerdrop choose-k": {"max_k": "--k"},
    "layerdrop search": {"k": "--max_k"},
    "layerdrop sweep": {"model": "--models", "strategy": "--strategies"},
    "layerdrop layers": {"model": "--models"},
}
"""Command -> {common mistake: the correct flag}."""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Show defaults other than None, False and an empty list."""

    def _get_help_string(self, action) -> str:
        text, default = action.help or "", action.default
        shown = default in (None, False, [], argparse.SUPPRESS) or "default" in text.lower()
        words = " ".join(map(str, default)) if isinstance(default, list) else str(default)
        return text if shown else f"{text} (default: {words.replace('%', '%%')})"


def flag_name(word: str) -> str:
    """`--drop-k=6` -> `drop_k`."""
    return word.partition("=")[0][2:].replace("-", "_")


def no_such_flag(
    word: str, known: Iterable[str], help: str, misnomers: Mapping[str, str] = {}, refused: Collection[str] = ()
) -> UserError:
    """The error for an unknown flag.

    help: the command that lists all flags. misnomers: name -> correct flag. refused: names of flags not to suggest.
    """
    flag = word.partition("=")[0]
    typed, known = f"--{flag_name(word)}", [name for name in known if name.startswith("--")]
    near = get_close_matches(typed, known, n=1) or [name for name in known if name.startswith(typed)]
    hint = misnomers.get(flag_name(word), near[0] if near else "")
    hint = "" if flag_name(hint.partition(" ")[0]) in refused else hint
    return UserError(f"no such flag.{hint and f' Did you mean {hint}?'} All flags: {help}.", flag)


def unknown_flags(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words that look like a flag and are none of a parser's flags."""
    words = words[: words.index("--")] if "--" in words else words
    flags = [word for word in words if re.match("--|-[A-Za-z]", word)]
    return [word for word in flags if word.partition("=")[0] not in parser._option_string_actions]


class OneLineErrors:
    """Mixin of argument parsers: errors are UserErrors. `--` is a value after `=`."""

    def error(self, message: str):
        """Raise UserError with argparse's message, reordered: flag, received value, allowed values."""
        flag, message = re.fullmatch(r"(?:argument (--\w+)(?:/--[\w-]+)*: )?(.*)", message, re.DOTALL).groups()
        message = message.replace("invalid int value:", "not a whole number:")
        message = message.replace("invalid float value:", "not a number:")
        message = message.replace("invalid LocalPath value:", "not a path:")
        if flag and re.search("not a .*number: '[^']*,", message) and self._option_string_actions[flag].nargs == "+":
            message += ". Separate numbers with blanks"
        raise UserError(f"{message.rstrip('.')}. See {self.prog} --help.", flag or "")

    def _get_values(self, action, arg_strings):
        """Keep the value of `--flag=--`, which argparse removes before Python 3.13."""
        if not (action.option_strings and arg_strings == ["--"]):
            return super()._get_values(action, arg_strings)
        value = self._get_value(action, "--")
        self._check_value(action, value)
        return value if action.nargs in (None, "?") else [value]


class CommandParser(OneLineErrors, argparse.ArgumentParser):
    """The parser of a subcommand."""

    def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
        """Parse flags. Raises UserError for an unknown flag, with the nearest match, before a missing argument."""
        if unknown := unknown_flags(self, sys.argv[1:] if args is None else args):
            raise self.no_such_flag(unknown[0])
        values, rest = self.parse_known_args(args, namespace)
        if rest:
            self.error(f"unexpected argument '{rest[0]}'")
        return values

    def no_such_flag(
        self, word: str, others: Iterable[str] = (), misnomers: Mapping[str, str] = {}, refused: Collection[str] = ()
    ) -> UserError:
        """The error for an unknown flag. others: the flags of a run that the command takes, too."""
        known = [*self._option_string_actions, *others]
        help = f"{self.prog} --help" + ", layerdrop run --help_all" * bool(others)
        return no_such_flag(word, known, help, {**misnomers, **MISNOMERS.get(self.prog, {})}, refused)


def _flags_of_runs(name: str, error: UserError) -> str:
    """A sentence if an error of a command advises flags that only `layerdrop run` has; else empty."""
    if name in WITH_FLAGS_OF_RUNS or "layerdrop run" in error.text or "Did you mean" in error.text:
        return ""
    from layerdrop.cli.flags import SECTIONS

    own = command_parser(name)._option_string_actions
    of_run = {f"--{flag}" for _, flags in SECTIONS.values() for flag in flags}
    named = [error.flag, *re.findall(r"(?<![\w-])--[\w-]+", error.text)]
    others = [flag for flag in dict.fromkeys(f"--{flag_name(word)}" for word in named) if flag in of_run - own.keys()]
    if not others:
        return ""
    words = f"{' and '.join(others)} {'is a flag' if len(others) == 1 else 'are flags'}"
    return f" {words} of layerdrop run, not of layerdrop {name}."


def _lines(name: str, error: UserError) -> str:
    """An error of a command for the terminal."""
    lines = [f"error: {cut_middle(line)}" for line in printable(str(error)).split("\n") if line]
    return "\n".join(lines) + _flags_of_runs(name, error)


def command_module(name: str):
    """The module of a subcommand."""
    return import_module(f"layerdrop.cli.{name.replace('-', '_')}")


def command_parser(name: str) -> CommandParser:
    """The parser of a subcommand, with its flags."""
    module = command_module(name)
    parser = CommandParser(f"layerdrop {name}", description=module.__doc__, formatter_class=_Help, allow_abbrev=False)
    module.add_flags(parser)
    return parser


def recipe():
    """The module of the recipe, run_glue.py."""
    return import_module("run_glue")


def run_command(name: str, words: Sequence[str]) -> int:
    """Execute a subcommand in this process. words: its command line after the name.

    Returns the exit code: 0 done, 1 a run failed or the system refused (a full disk), 2 unusable input, 130 stopped by
    the user.
    """
    try:
        return command_module(name).main(command_parser(name), list(words))
    except UserError as error:
        text, code = "\n".join(_lines(name, problem) for problem in error.problems or (error,)), 2
    except KeyboardInterrupt as stop:
        text, code = f"stopped. {stop}" if str(stop) else STOPPED, 130
    except Exception as error:
        if (reason := fault(error)) is None:
            raise
        text, code = f"error: {reason}", 2 if getattr(error, "errno", None) in UNUSABLE_PATH else 1
    if is_first():
        print(text, file=sys.stderr)
    return code


def complete() -> None:
    """Answer the completion request of a shell, and exit."""
    import argcomplete

    parser = argparse.ArgumentParser(prog="layerdrop")
    commands = parser.add_subparsers()
    for name, summary in COMMANDS.items():
        command_module(name).add_flags(commands.add_parser(name, help=summary))
    argcomplete.autocomplete(parser)


def overview(words: Sequence[str]) -> int:
    """Print the commands. Returns the exit code: 2 for an unknown command."""
    if words and words[0] == "--version":
        print(f"layerdrop {sys.modules['layerdrop'].__version__}")
        return 0
    if words and words[0] not in ("-h", "--help"):
        print(f"error: {unknown('layerdrop', words[0], COMMANDS, 'command')}", file=sys.stderr)
        return 2
    rows = "\n".join(f"  {name:10}{summary}" for name, summary in COMMANDS.items())
    more = "The flags of a command: layerdrop COMMAND --help\nThe version: layerdrop --version"
    print(f"usage: layerdrop COMMAND [--flag value ...]\n\n{rows}\n\n{more}")
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """The installed command: prepare the process, and execute the words of its command line. Returns the exit code."""
    handle_interrupts()
    prepare_process()
    words = sys.argv[1:] if words is None else words
    if "_ARGCOMPLETE" in os.environ:
        complete()
    code = run_command(words[0], words[1:]) if words and words[0] in COMMANDS else overview(words)
    if (error := lost_output()) and is_first():
        print(f"error: stdout: {fault(error)}", file=sys.stderr)
        code = code or 1
    gc.freeze()  # skip the search for garbage among imported modules at exit
    return code
