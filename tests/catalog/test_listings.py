import itertools
import re
from typing import Any

import msgspec
import pytest

from manyways.catalog import listings, shelf
from manyways.catalog.selection import CAPABILITIES
from manyways.catalog.shelf import Listing
from manyways.catalog.snapshot import Snapshot
from manyways.errors import Refusal
from manyways.types import CATEGORIES, Model

CREATED = 1731654208
GENERATED = 1763375400.0  # 2025-11-17T10:30:00Z

GPT_4O_MINI = Model(
    id="gpt-4o-mini",
    provider="Capi",
    upstream_id="gpt-4o-mini-2024-07-18",
    created=CREATED,
    latency_ms=1500,
    quality_score=8.5,
    last_verified="2025-11-15 08:23:28",
    context_window=128000,
    max_output_tokens=16384,
    capabilities=("tools", "vision"),
    modalities=("text", "image"),
    pricing={"prompt": 1.5e-07, "completion": 6e-07},
    uptime_24h=0.995,
)
O3 = Model(
    id="o3",
    provider="Capi",
    upstream_id="o3",
    created=CREATED - 1,
    latency_ms=1605,
    quality_score=7.9,
    last_verified="2025-11-17 08:23:28",
)
DOWN = Model(
    id="dall-e-3",
    provider="Capi",
    upstream_id="dall-e-3",
    created=1,
    category="image",
    status="down",
    latency_ms=9000,
    quality_score=1.0,
    last_verified="2025-11-18 00:00:00",
)
VOICE = Model(id="alloy", provider="OpenAIFM", upstream_id="alloy", created=5, category="audio")
OTHER_MINI = Model(id="gpt-4o-mini", provider="Other", upstream_id="mini", created=6)
EMBED = Model(id="e5", provider="Other", upstream_id="e5", created=7, category="embedding")

SNAPSHOT = Snapshot(
    models=(GPT_4O_MINI, O3, DOWN, VOICE, OTHER_MINI, EMBED),
    provider_names=("Capi", "OpenAIFM", "Other", "Quiet"),
    made_at=GENERATED,
)

BEYOND = {
    "context_window": 128000,
    "max_output_tokens": 16384,
    "capabilities": ["tools", "vision"],
    "modalities": ["text", "image"],
    "pricing": {"prompt": 1.5e-07, "completion": 6e-07},
    "status": "active",
    "uptime_24h": 0.995,
}
THE_MODEL = {
    "id": "gpt-4o-mini",
    "object": "model",
    "created": 1731654208,
    "owned_by": "Capi",
    "permission": [
        {
            "id": "modelperm-gpt-4o-mini-0",
            "object": "model_permission",
            "created": 1731654208,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
    ],
    "provider": "Capi",
    "category": "text",
    "latency_ms": 1500,
    "quality_score": 8.5,
    "last_verified": "2025-11-15 08:23:28",
}
THE_PROVIDER = {
    "id": "Capi",
    "object": "provider",
    "created": 1731654207,
    "name": "Capi",
    "capabilities": {"text": True, "image": False, "audio": False, "video": False},
    "models": {"total": 2, "text": 2, "image": 0, "audio": 0, "video": 0},
    "performance": {"avg_latency_ms": 1552, "avg_quality_score": 8.2},
    "last_verified": "2025-11-17 08:23:28",
}


def read(listing: Listing) -> Any:
    return msgspec.json.decode(listing.body)


def ids(listing: Listing) -> list[tuple[str, str]]:
    return [(row["provider"], row["id"]) for row in read(listing)["data"]]


def same_to_the_letter(found: object, expected: object) -> None:
    """Equal, and with the keys of every object in the same order."""
    assert found == expected
    assert msgspec.json.encode(found) == msgspec.json.encode(expected)


# All models


def test_a_model_has_every_field_of_the_reference_in_its_order_and_then_ours() -> None:
    first = read(listings.models(SNAPSHOT))["data"][0]
    same_to_the_letter(first, THE_MODEL | BEYOND)


def test_the_list_is_openais_with_the_references_meta() -> None:
    answer = read(listings.models(SNAPSHOT))
    assert list(answer) == ["object", "data", "meta"]
    assert answer["object"] == "list"
    same_to_the_letter(
        answer["meta"],
        {
            "total_models": 5,
            "provider_filter": None,
            "generated_at": "2025-11-17T10:30:00.000Z",
            "data_window": "active_only",
        },
    )


def test_what_has_not_been_measured_is_null_and_there() -> None:
    (voice,) = read(listings.models(SNAPSHOT, provider="OpenAIFM"))["data"]
    for field in ("latency_ms", "quality_score", "last_verified", "context_window"):
        assert voice[field] is None
    for field in ("max_output_tokens", "modalities", "pricing", "uptime_24h"):
        assert voice[field] is None
    assert voice["capabilities"] == []
    assert voice["status"] == "active"


def test_filters_narrow_the_list_and_meta_says_so() -> None:
    only = listings.models(SNAPSHOT, provider="Other")
    assert ids(only) == [("Other", "gpt-4o-mini"), ("Other", "e5")]
    assert read(only)["meta"]["provider_filter"] == "Other"
    assert read(only)["meta"]["total_models"] == 2
    assert ids(listings.models(SNAPSHOT, category="audio")) == [("OpenAIFM", "alloy")]
    assert ids(listings.models(SNAPSHOT, capability="vision")) == [("Capi", "gpt-4o-mini")]
    assert ids(listings.models(SNAPSHOT, provider="Other", category="embedding")) == [
        ("Other", "e5")
    ]
    assert ids(listings.models(SNAPSHOT, provider="Quiet")) == []


def test_models_that_are_down_are_left_out_unless_all_are_asked_for() -> None:
    assert ("Capi", "dall-e-3") not in ids(listings.models(SNAPSHOT))
    everything = listings.models(SNAPSHOT, status="all")
    assert ("Capi", "dall-e-3") in ids(everything)
    assert read(everything)["meta"]["data_window"] == "all"
    assert read(everything)["meta"]["total_models"] == 6


def test_an_empty_filter_is_none() -> None:
    plain = listings.models(SNAPSHOT)
    assert listings.models(SNAPSHOT, provider="", category="", capability="", status="") == plain


@pytest.mark.parametrize(
    ("filters", "code", "param", "names"),
    [
        ({"provider": "Kapi"}, "provider_not_found", "provider", ["Capi", "OpenAIFM", "Quiet"]),
        ({"provider": "capi"}, "provider_not_found", "provider", ["Capi"]),
        ({"category": "smell"}, "invalid_request", "category", list(CATEGORIES)),
        ({"capability": "fly"}, "invalid_request", "capability", ["tools", "vision", "prefill"]),
        ({"status": "down"}, "invalid_request", "status", ["all", "active_only"]),
    ],
)
def test_a_filter_that_cannot_be_is_refused_with_what_can(
    filters: dict[str, str], code: str, param: str, names: list[str]
) -> None:
    with pytest.raises(Refusal) as refusal:
        listings.models(SNAPSHOT, **filters)
    assert (refusal.value.code, refusal.value.param) == (code, param)
    assert all(name in refusal.value.message for name in names)


def test_a_long_filter_is_not_echoed_whole() -> None:
    with pytest.raises(Refusal) as refusal:
        listings.models(SNAPSHOT, provider="x" * 10_000)
    assert len(refusal.value.message) < 300


# One model


def test_one_model_is_its_row_and_nothing_around_it() -> None:
    same_to_the_letter(read(listings.model(SNAPSHOT, "gpt-4o-mini", "Capi")), THE_MODEL | BEYOND)


def test_of_several_providers_the_one_that_is_asked_first_or_the_one_asked_for() -> None:
    assert read(listings.model(SNAPSHOT, "gpt-4o-mini"))["owned_by"] == "Other"
    assert read(listings.model(SNAPSHOT, "gpt-4o-mini", "Capi"))["owned_by"] == "Capi"
    assert read(listings.model(SNAPSHOT, "gpt-4o-mini", "Other"))["owned_by"] == "Other"
    assert read(listings.model(SNAPSHOT, "Other/gpt-4o-mini"))["owned_by"] == "Other"
    tired = msgspec.structs.replace(GPT_4O_MINI, status="down")
    snapshot = SNAPSHOT.with_provider("Capi", [tired], GENERATED)
    assert read(listings.model(snapshot, "gpt-4o-mini"))["owned_by"] == "Other"
    assert read(listings.model(snapshot, "Capi/gpt-4o-mini"))["status"] == "down"


def test_an_unknown_model_is_refused_and_who_has_it_is_told() -> None:
    with pytest.raises(Refusal, match="no model 'gpt-5'") as refusal:
        listings.model(SNAPSHOT, "gpt-5")
    assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")
    with pytest.raises(Refusal, match="Other has no model 'o3'; Capi has it") as refusal:
        listings.model(SNAPSHOT, "o3", "Other")
    assert refusal.value.code == "model_not_found"
    with pytest.raises(Refusal, match="Other has no model 'o3'; Capi has it"):
        listings.model(SNAPSHOT, "Other/o3")
    with pytest.raises(Refusal, match="no provider 'Nobody'") as refusal:
        listings.model(SNAPSHOT, "o3", "Nobody")
    assert refusal.value.code == "provider_not_found"


# Providers


def test_a_provider_has_every_field_of_the_reference_in_its_order() -> None:
    answer = read(listings.providers(SNAPSHOT, "Capi"))
    same_to_the_letter(
        answer,
        {
            "object": "list",
            "data": [THE_PROVIDER],
            "meta": {
                "total_providers": 1,
                "provider_filter": "Capi",
                "generated_at": "2025-11-17T10:30:00.000Z",
                "data_window": "active_only",
            },
        },
    )


def test_all_configured_providers_are_listed_also_those_without_models() -> None:
    answer = read(listings.providers(SNAPSHOT))
    assert [row["id"] for row in answer["data"]] == ["Capi", "OpenAIFM", "Other", "Quiet"]
    assert answer["meta"]["total_providers"] == 4
    assert answer["meta"]["provider_filter"] is None
    quiet = answer["data"][-1]
    assert quiet["created"] is None
    assert quiet["models"] == {"total": 0, "text": 0, "image": 0, "audio": 0, "video": 0}
    assert not any(quiet["capabilities"].values())
    assert quiet["performance"] == {"avg_latency_ms": None, "avg_quality_score": None}
    assert quiet["last_verified"] is None


def test_embeddings_count_in_the_total_only() -> None:
    (other,) = read(listings.providers(SNAPSHOT, "Other"))["data"]
    assert other["models"] == {"total": 2, "text": 1, "image": 0, "audio": 0, "video": 0}
    assert list(other["capabilities"]) == ["text", "image", "audio", "video"]


def test_an_unknown_provider_is_refused_naming_the_known() -> None:
    with pytest.raises(Refusal, match="Capi, OpenAIFM, Other, Quiet") as refusal:
        listings.providers(SNAPSHOT, "Kapi")
    assert (refusal.value.code, refusal.value.param) == ("provider_not_found", "name")
    with pytest.raises(Refusal, match="none is configured"):
        listings.providers(Snapshot(), "Kapi")


# Entity tags and what is kept


def test_tags_are_strong_and_differ_with_the_content() -> None:
    answers = [
        listings.models(SNAPSHOT),
        listings.models(SNAPSHOT, status="all"),
        listings.models(SNAPSHOT, provider="Capi"),
        listings.models(SNAPSHOT, provider="Quiet"),
        listings.model(SNAPSHOT, "o3"),
        listings.providers(SNAPSHOT),
        listings.text_list(SNAPSHOT, "Manyways"),
        listings.text_list(SNAPSHOT, "Manyways", lang="en"),
    ]
    tags = {listing.etag for listing in answers}
    assert len(tags) == len(answers)
    assert all(re.fullmatch(r'"[0-9a-f]{32}"', tag) for tag in tags)


def test_a_tag_outlives_a_restart_that_changes_nothing_and_no_other() -> None:
    later = Snapshot(SNAPSHOT.models, SNAPSHOT.provider_names, GENERATED + 60)
    for render in (listings.models, listings.providers):
        before, after = render(SNAPSHOT), render(later)
        assert before.body != after.body
        assert before.etag == after.etag
    changed = SNAPSHOT.with_provider("Quiet", [VOICE], GENERATED)
    assert listings.models(changed).etag != listings.models(SNAPSHOT).etag


def test_an_answer_is_rendered_once_for_a_snapshot() -> None:
    assert listings.models(SNAPSHOT) is listings.models(SNAPSHOT)
    assert listings.model(SNAPSHOT, "o3") is listings.model(SNAPSHOT, "Capi/o3")
    assert listings.providers(SNAPSHOT) is listings.providers(SNAPSHOT, "")
    assert listings.text_list(SNAPSHOT, "M") is listings.text_list(SNAPSHOT, "M", "", "")
    twin = Snapshot(SNAPSHOT.models, SNAPSHOT.provider_names, GENERATED)
    assert listings.models(SNAPSHOT) is not listings.models(twin)
    assert listings.models(SNAPSHOT) == listings.models(twin)


def test_a_row_that_stays_the_same_is_not_encoded_again() -> None:
    slower = msgspec.structs.replace(GPT_4O_MINI, latency_ms=1600)
    equal = msgspec.structs.replace(O3)
    before = [listings.model(SNAPSHOT, name, "Capi") for name in ("gpt-4o-mini", "o3")]
    later = SNAPSHOT.with_provider("Capi", [slower, equal, DOWN], GENERATED)
    after = [listings.model(later, name, "Capi") for name in ("gpt-4o-mini", "o3")]
    assert after[1] is before[1]
    assert read(after[0])["latency_ms"] == 1600
    assert after[0].etag != before[0].etag
    assert read(listings.models(later))["data"][:2] == [read(row) for row in after]


def test_no_storm_of_filters_has_the_plain_answers_rendered_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shelf, "SHELF", 100_000)
    names = tuple(f"Provider{n}" for n in range(8))
    rows = tuple(
        Model(
            id=f"m{n}",
            provider=names[n % 8],
            upstream_id="x",
            created=1,
            category=CATEGORIES[n % 5],
            capabilities=CAPABILITIES,
        )
        for n in range(300)
    )
    snapshot = Snapshot(rows, names, GENERATED)

    def plain() -> list[Listing]:
        return [
            listings.models(snapshot),
            listings.providers(snapshot),
            listings.text_list(snapshot, "M", lang="ru"),
            listings.text_list(snapshot, "M", lang="en"),
            *(listings.model(snapshot, row.id) for row in rows),
        ]

    before = plain()
    assert len(before[0].body) > 100_000
    for provider, category, capability, status in itertools.product(
        ("", *names), ("", *CATEGORIES), ("", *CAPABILITIES), ("", "all")
    ):
        listings.models(
            snapshot, provider=provider, category=category, capability=capability, status=status
        )
        listings.text_list(snapshot, "M", provider, category)
    assert all(now is then for now, then in zip(plain(), before, strict=True))


def test_what_is_kept_goes_with_its_snapshot() -> None:
    snapshot = Snapshot(SNAPSHOT.models, SNAPSHOT.provider_names, GENERATED)
    listings.models(snapshot)
    before = len(listings._shelves)
    del snapshot
    assert len(listings._shelves) == before - 1


def test_an_empty_catalog_is_an_empty_list() -> None:
    answer = read(listings.models(Snapshot()))
    assert answer["data"] == []
    assert answer["meta"]["total_models"] == 0
