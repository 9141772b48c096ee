"""Errors of the user, in one line each."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Input that cannot be used. The message is one line: what was received, what is allowed, what to do next.

    Command lines print it without a traceback and exit with code 2.
    """


def unknown(flag: str, received: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that is not in a table: the nearest match first, then everything that is allowed."""
    allowed = [str(name) for name in allowed]
    near = get_close_matches(str(received), allowed, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"{flag}: unknown value '{received}'.{hint} Allowed: {', '.join(allowed)}.")
