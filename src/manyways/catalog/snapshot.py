"""The catalog at one moment: an immutable value, swapped whole and never half old."""

from collections.abc import Iterable
from functools import cached_property

from msgspec import Struct

from manyways.types import Model


class Snapshot(Struct, frozen=True, eq=False, dict=True, weakref=True):
    """Every model of every provider, as it was at `made_at` (Unix seconds).

    `provider_names` are the configured providers in their order, also those that have no
    models now. `models` stand in the order of their providers and, within one, as they were
    given. `untold` are the providers that are to be asked for their models and have not told
    them yet: they may have any. Invariants: every model's provider is in `provider_names`; no
    provider has one id twice.
    """

    models: tuple[Model, ...] = ()
    provider_names: tuple[str, ...] = ()
    made_at: float = 0.0
    untold: tuple[str, ...] = ()

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {len(self.of_provider(name))}" for name in self.provider_names)
        return f"<Snapshot {len(self.models)} models: {counts or 'no providers'}>"

    def by_id(self, model_id: str) -> tuple[Model, ...]:
        """The rows of the model with exactly this id, one a provider that has it."""
        return self._by_id.get(model_id, ())

    def of_provider(self, name: str) -> tuple[Model, ...]:
        """The provider's models; none for a provider that is not known."""
        return self._by_provider.get(name, ())

    def split_name(self, name: str) -> tuple[str | None, str]:
        """`"Capi/gpt-4o"` to `("Capi", "gpt-4o")`; `(None, name)` where no provider is named.

        An exact id wins, for ids may contain slashes.
        """
        if name not in self._by_id:
            provider, slash, rest = name.partition("/")
            if slash and provider in self._by_provider:
                return provider, rest
        return None, name

    def resolve_name(self, name: str) -> tuple[Model, ...]:
        """The rows a caller means by `"gpt-4o"` or `"Capi/gpt-4o"`; none if there are none."""
        provider, model_id = self.split_name(name)
        rows = self.by_id(model_id)
        return rows if provider is None else tuple(row for row in rows if row.provider == provider)

    def with_provider(self, name: str, models: Iterable[Model], made_at: float) -> "Snapshot":
        """This snapshot with `models`, as the provider told, in place of all that it had."""
        rows = {known: self.of_provider(known) for known in self.provider_names}
        rows[name] = tuple(models)
        return Snapshot(
            models=tuple(model for row in rows.values() for model in row),
            provider_names=tuple(rows),
            made_at=made_at,
            untold=tuple(untold for untold in self.untold if untold != name),
        )

    @cached_property
    def _by_id(self) -> dict[str, tuple[Model, ...]]:
        found: dict[str, list[Model]] = {}
        for model in self.models:
            found.setdefault(model.id, []).append(model)
        return {model_id: tuple(rows) for model_id, rows in found.items()}

    @cached_property
    def _by_provider(self) -> dict[str, tuple[Model, ...]]:
        found: dict[str, list[Model]] = {name: [] for name in self.provider_names}
        for model in self.models:
            found[model.provider].append(model)
        return {name: tuple(rows) for name, rows in found.items()}
