"""The `[limits]` section: what is assumed where a request does not say how much it wants."""

from msgspec import Struct


class Settings(Struct, frozen=True, kw_only=True):
    """`output_tokens` are reserved for an answer whose caller sets no `max_tokens`, and whose
    model tells no `max_output_tokens`."""

    output_tokens: int = 4096
