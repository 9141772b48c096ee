"""`python -m layerdrop`: the same as the installed command."""

import sys

from layerdrop.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
