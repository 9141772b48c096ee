"""Show layers, parameters, scores and seconds of finished runs of one task side by side.

  layerdrop compare runs/FULL runs/REDUCED ...

Values in parentheses are differences to the first run: in points for scores, in percent for parameters and seconds.
"""

import argparse

from layerdrop.system.files import LocalPath


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `layerdrop compare`."""
    text = "folders of runs; every run is compared with the first one"
    parser.add_argument("folders", type=LocalPath, nargs="+", metavar="FOLDER", help=text)


def main(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Print the comparison. Returns the exit code."""
    folders = parser.parse_args(words).folders
    from layerdrop.report.compare import compare, read_runs

    print(compare(read_runs(folders)))
    return 0
