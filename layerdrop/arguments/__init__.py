"""Command-line words to (RunSpec, Options): flags, legacy names, files, and every check without model and data."""

from layerdrop.arguments.checks import logged_metrics
from layerdrop.arguments.files import flags_of, read_settings
from layerdrop.arguments.legacy import RENAMED, WITHOUT_EFFECT, translate
from layerdrop.arguments.parsing import Arguments, Parser, flag_names, parse
from layerdrop.arguments.to_spec import NO_EFFECT

__all__ = [
    "NO_EFFECT",
    "RENAMED",
    "WITHOUT_EFFECT",
    "Arguments",
    "Parser",
    "flag_names",
    "flags_of",
    "logged_metrics",
    "parse",
    "read_settings",
    "translate",
]
