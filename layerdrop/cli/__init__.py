"""Command-line words to (RunSpec, Options): flags, legacy names, files, and every check without model and data."""

from layerdrop.cli.checks import logged_metrics
from layerdrop.cli.legacy import RENAMED, WITHOUT_EFFECT, translate
from layerdrop.cli.parsing import Arguments, Parser, flag_names, parse
from layerdrop.cli.settings_files import flags_of, read_settings
from layerdrop.cli.to_spec import NO_EFFECT

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
