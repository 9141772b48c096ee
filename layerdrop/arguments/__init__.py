"""The flags of run_glue.py: their groups, old names, files, and every check that needs no model and no data."""

from layerdrop.arguments.files import flags_of, read_settings
from layerdrop.arguments.older import RENAMED, WITHOUT_EFFECT, translate
from layerdrop.arguments.parsing import Parser, flag_names, parse
from layerdrop.arguments.recipe import RECIPE, recipe
from layerdrop.arguments.whole import Arguments

__all__ = [
    "RECIPE",
    "RENAMED",
    "WITHOUT_EFFECT",
    "Arguments",
    "Parser",
    "flag_names",
    "flags_of",
    "parse",
    "read_settings",
    "recipe",
    "translate",
]
