"""What operators write: names, notes and reasons, as no terminal and no database stumbles over."""

import re
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from manyways.errors import ConfigError

LONGEST_NAME: Final = 200
LONGEST_NOTE: Final = 1000

_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class Mistake(ConfigError):
    """What was asked for cannot be: `field` names what is wrong (`limits.window`), and the
    message follows from it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field

    def __repr__(self) -> str:
        return f"<Mistake {self.field}: {self}>"


def alternatives(names: Sequence[str]) -> str:
    """`day, month or ever`."""
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names)


def hint(name: str, names: Sequence[str]) -> str:
    """What may have been meant by a name that is none of these: the rest of a sentence."""
    near = get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; these are: {', '.join(names)}." if names else "; none is needed."


def near_names(name: str, names: Sequence[str]) -> str:
    """`Did you mean 'Ada Ltd'?`, or nothing. Capital letters make no difference."""
    folded = {one.casefold(): one for one in names}
    near = [folded[one] for one in get_close_matches(name.casefold(), folded, n=3)]
    return f"Did you mean {alternatives([repr(one) for one in near])}?" if near else ""


def account_name(text: str) -> str:
    """An account's name: 1 to 200 printable characters, blanks around it taken away."""
    name = unicodedata.normalize("NFC", text.strip())
    if not name:
        raise Mistake("name", "The name is empty.")
    if len(name) > LONGEST_NAME:
        raise Mistake("name", f"The name is longer than {LONGEST_NAME} characters.")
    if not name.isprintable():
        raise Mistake("name", "The name has characters in it that cannot be printed.")
    if _ID.fullmatch(name):
        raise Mistake("name", "The name looks like an id. Accounts are found by either.")
    return name


def new_account_name(text: str) -> str:
    """The same for an account that is made: what cannot stand in an address is no name."""
    name = account_name(text)
    if "/" in name:
        raise Mistake("name", "The name has a slash in it, which cannot stand in an address.")
    if name in {".", ".."}:
        raise Mistake("name", "The name is only dots, which mean something else in an address.")
    return name


def one_line(field: str, text: str | None) -> str | None:
    """A note or a reason on one line; `None` where nothing is left of it."""
    if text is None:
        return None
    line = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    if len(line) > LONGEST_NOTE:
        raise Mistake(field, f"The {field} is longer than {LONGEST_NOTE} characters.")
    return line or None
