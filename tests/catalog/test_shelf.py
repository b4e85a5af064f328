import msgspec
import pytest

from manyways.catalog import shelf
from manyways.catalog.shelf import Listing, Rows, Shelf
from manyways.types import Model


def model(name: str, provider: str = "Capi", latency_ms: int | None = None) -> Model:
    return Model(id=name, provider=provider, upstream_id=name, created=1, latency_ms=latency_ms)


def listing(size: int) -> Listing:
    return Listing(b"x" * size, str(size))


class Kitchen:
    """Renders answers, and counts how often."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.rendered: list[str] = []

    def ask(self, name: str, size: int, *, kept: bool = False) -> Listing:
        def render() -> Listing:
            self.rendered.append(name)
            return listing(size)

        return self.shelf.find(name, render, kept=kept)


# Rows


def test_an_equal_model_is_encoded_no_second_time_and_another_is() -> None:
    rows = Rows()
    row = rows.of(model("a"))
    assert rows.of(model("a")) is row
    assert rows.of(model("a", provider="Other")) is not row
    slower = rows.of(model("a", latency_ms=9))
    assert msgspec.json.decode(slower.body)["latency_ms"] == 9
    assert slower.etag != row.etag


def test_what_callers_do_not_see_changes_no_tag() -> None:
    rows = Rows()
    row = rows.of(model("a"))
    assert rows.of(msgspec.structs.replace(model("a"), asked_last=True)).etag == row.etag


def test_rows_of_models_that_have_left_are_forgotten() -> None:
    rows = Rows()
    stays, _ = rows.of(model("a")), rows.of(model("b"))
    rows.keep([model("a")])
    assert repr(rows) == "<Rows of 1 models>"
    assert rows.of(model("a")) is stays


# Answers


def test_an_answer_is_rendered_once() -> None:
    kitchen = Kitchen()
    assert kitchen.ask("a", 5) is kitchen.ask("a", 5)
    assert kitchen.ask("b", 5, kept=True) is kitchen.ask("b", 5, kept=True)
    assert kitchen.rendered == ["a", "b"]


def test_filtered_answers_are_bounded_and_who_was_asked_for_last_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shelf, "SHELF", 100)
    kitchen = Kitchen()
    kitchen.ask("list", 1000, kept=True)
    for name in ("a", "b", "a", "c"):
        kitchen.ask(name, 40)
    assert repr(kitchen.shelf) == "<Shelf 1 kept, 2 others of 80 bytes>"
    kitchen.rendered.clear()
    for name in ("a", "c", "b"):
        kitchen.ask(name, 40)
    kitchen.ask("list", 1000, kept=True)
    assert kitchen.rendered == ["b"]


def test_an_answer_larger_than_the_shelf_is_still_kept_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shelf, "SHELF", 10)
    kitchen = Kitchen()
    assert kitchen.ask("large", 50) is kitchen.ask("large", 50)
    kitchen.ask("other", 20)
    assert repr(kitchen.shelf) == "<Shelf 0 kept, 1 others of 20 bytes>"
