"""The part of the OpenAPI document for operators: keys, accounts, usage, and the catalog."""

from typing import TYPE_CHECKING, Any, Final

from manyways.edge import openapi_catalog
from manyways.edge.described import (
    COUNT,
    JSON,
    MAYBE_MOMENT,
    MAYBE_TEXT,
    MOMENT,
    TEXT,
    Schema,
    described,
    list_of,
    object_of,
    operation,
    page_of,
    reference,
    wish_of,
)
from manyways.operations.remainders import UNITS

if TYPE_CHECKING:
    from sqlalchemy import Table

_PAGE: Final = {
    "cursor": "The `next_cursor` of the page before.",
    "limit": "Rows at most: 1 to 1000, else 100.",
}
_KEY_ID: Final = {"id": "The key's id."}
_ACCOUNT_ID: Final = {"id": "The account's id or name."}
_SPAN: Final = {
    "from": "A date, or a moment: `2026-11-23`, `2026-11-23T14:00Z`.",
    "to": "The same; a date is included.",
    "last": "In place of both: `24h`, `7d`, `4w`.",
    "group_by": "`day`, `hour`, `model`, `provider`, `key`, `user`, `status`, or two of them.",
}
_FILTERS: Final = {
    "key": "Only this key's: its id or last four characters.",
    "user": "Only this account's: its id or name.",
    "model": "Only this model's.",
    "provider": "Only this provider's.",
    "status": "Only requests that ended with this status.",
}
_DURATION: Final[Schema] = {
    "type": ["string", "number"],
    "description": "Seconds, or with a unit: `90s`, `1m`, `24h`, `30d`.",
    "examples": ["1m"],
}
_NOTE: Final = described(MAYBE_TEXT, "For people.")
_REASON: Final = wish_of({"reason": described(MAYBE_TEXT, "Why; it is kept.")})
_KINDS: Final[dict[str, Schema]] = {
    "Text": TEXT,
    "DateTime": MOMENT,
    "Integer": COUNT,
    "BigInteger": COUNT,
    "Double": {"type": "number"},
}
_LIMITS: Final = reference("Limits")
_OWN_LIMITS: Final[Schema] = {"anyOf": [_LIMITS, {"type": "null"}]}


def mounted() -> dict[str, Any]:
    """Paths below each mount."""
    return {
        "/usage": {
            "get": operation(
                "What your key has used, and what is left of its limits",
                "usage",
                "A report",
                query={**_SPAN, "group_by": "`day`, `hour`, `model` or `status`."},
                schema={
                    "allOf": [
                        reference("UsageReport"),
                        object_of(
                            {
                                "key": object_of(
                                    dict.fromkeys(("id", "last4", "type", "line"), TEXT)
                                ),
                                "limits": reference("LimitsInEffect"),
                            }
                        ),
                    ]
                },
                key=True,
            )
        }
    }


def rooted() -> dict[str, Any]:
    """Paths at the root."""
    return {**_keys(), **_accounts(), **_usage(), **openapi_catalog.rooted()}


def schemas() -> dict[str, Schema]:
    """What those paths refer to."""
    return {
        "Limits": _limits(),
        "LimitsInEffect": _limits_in_effect(),
        "Key": _key(),
        "NewKey": object_of({"key": described(TEXT, "The secret, this once."), **_key_fields()}),
        "Account": _account(),
        "UsageReport": _usage_report(),
        "UsageRecord": _usage_record(),
        **openapi_catalog.schemas(),
    }


def _keys() -> dict[str, Any]:
    key, new_key = reference("Key"), reference("NewKey")
    wish = wish_of(
        {
            "type": described(TEXT, "One that the configuration has."),
            "account": described(MAYBE_TEXT, "An account's id or name."),
            "note": _NOTE,
            "limits": described(_OWN_LIMITS, "In place of its type's."),
            "expires_in": described(
                {**_DURATION, "type": ["string", "number", "null"]},
                "In place of its type's lifetime; `never` for one that does not expire.",
            ),
        },
        "type",
    )
    state = "`active`, `expired`, `revoked`, `suspended` or `all`, which is usual."
    return {
        "/admin/v1/keys": {
            "get": operation(
                "The keys, oldest first",
                "admin",
                "A page",
                query={"account": "Only this account's.", "status": state, **_PAGE},
                schema=page_of(key),
                key=True,
            ),
            "post": operation(
                "Make a key", "admin", "The key, and its secret", body=wish, status=201,
                schema=new_key, key=True,
            ),
        },
        "/admin/v1/keys/{id}": {
            "get": operation(
                "One key, and what is left of its limits",
                "admin",
                "The key",
                path=_KEY_ID,
                schema=_with_limits(key),
                key=True,
            ),
            "patch": operation(
                "Change a key; null takes away",
                "admin",
                "The key",
                path=_KEY_ID,
                body=wish_of({"limits": _OWN_LIMITS, "note": _NOTE}),
                schema=key,
                key=True,
            ),
        },
        "/admin/v1/keys/{id}/revoke": {
            "post": operation(
                "End a key for good", "admin", "The key", path=_KEY_ID, body=_REASON,
                body_needed=False, schema=key, key=True,
            )
        },
        "/admin/v1/keys/{id}/rotate": {
            "post": operation(
                "Another secret in a key's place",
                "admin",
                "The new key, and its secret",
                path=_KEY_ID,
                body=wish_of(
                    {"overlap": described(_DURATION, "How long the old one works; else a day.")}
                ),
                body_needed=False,
                status=201,
                schema={
                    "allOf": [
                        new_key,
                        object_of(
                            {"replaces": object_of({"id": TEXT, "expires_at": MAYBE_MOMENT})}
                        ),
                    ]
                },
                key=True,
            )
        },
    }  # fmt: skip


def _accounts() -> dict[str, Any]:
    account = reference("Account")
    fields = {"note": _NOTE, "limits": described(_OWN_LIMITS, "In place of the configuration's.")}
    return {
        "/admin/v1/accounts": {
            "get": operation(
                "The accounts, oldest first", "admin", "A page", query=_PAGE,
                schema=page_of(account), key=True,
            ),
            "post": operation(
                "Make an account",
                "admin",
                "The account",
                body=wish_of({"name": described(TEXT, "Nobody else's."), **fields}, "name"),
                status=201,
                schema=account,
                key=True,
            ),
        },
        "/admin/v1/accounts/{id}": {
            "get": operation(
                "One account, and what is left of its limits", "admin", "The account",
                path=_ACCOUNT_ID, schema=_with_limits(account), key=True,
            ),
            "patch": operation(
                "Change an account; null takes away", "admin", "The account", path=_ACCOUNT_ID,
                body=wish_of(fields), schema=account, key=True,
            ),
        },
        "/admin/v1/accounts/{id}/suspend": {
            "post": operation(
                "Stop all keys of an account", "admin", "The account", path=_ACCOUNT_ID,
                body=_REASON, body_needed=False, schema=account, key=True,
            )
        },
        "/admin/v1/accounts/{id}/resume": {
            "post": operation(
                "Let its keys work again", "admin", "The account", path=_ACCOUNT_ID,
                schema=account, key=True,
            )
        },
    }  # fmt: skip


def _usage() -> dict[str, Any]:
    return {
        "/admin/v1/usage": {
            "get": operation(
                "What was used",
                "usage",
                "A report",
                query={**_SPAN, **_FILTERS},
                kinds=(JSON, "text/csv"),
                schema=reference("UsageReport"),
                key=True,
            )
        },
        "/admin/v1/usage/records": {
            "get": operation(
                "The records of single requests",
                "usage",
                "A page",
                query={
                    "from": _SPAN["from"],
                    "to": _SPAN["to"],
                    "last": _SPAN["last"],
                    **_FILTERS,
                    "failed": "`true`: only those with a status of 400 or more.",
                    "attempts": "`true`: each with its attempts.",
                    "order": "`newest` first, which is usual, or `oldest`.",
                    **_PAGE,
                },
                kinds=(JSON, "text/csv"),
                schema=page_of(reference("UsageRecord")),
                key=True,
            )
        },
    }


def _limits() -> Schema:
    amount = {"type": ["integer", "null"], "minimum": 1}
    money = {"type": ["number", "null"], "exclusiveMinimum": 0}
    quota = wish_of(
        {
            "requests": amount,
            "tokens": amount,
            "cost": described(money, "USD."),
            "per": {"enum": ["day", "month", "ever"], "default": "ever"},
        }
    )
    return {
        **wish_of(
            {
                "requests": described(amount, "In any span of `window`."),
                "window": {**_DURATION, "type": ["string", "number", "null"]},
                "tokens": described(amount, "In any span of `tokens_window`."),
                "tokens_window": {**_DURATION, "type": ["string", "number", "null"]},
                "concurrent": described(amount, "Requests at once."),
                "quota": list_of(quota),
            }
        ),
        "description": "What is absent is not limited. Answers tell durations in seconds.",
    }


def _limits_in_effect() -> Schema:
    figure: Schema = {"type": "number"}
    window = object_of(
        {
            "unit": {"enum": ["requests", "tokens"]},
            "limit": COUNT,
            "window": described(figure, "Seconds."),
        }
    )
    quota = object_of(
        {
            "unit": {"enum": list(UNITS)},
            "per": {"enum": ["day", "month", "ever"]},
            "limit": figure,
            "used": described(figure, "In this period, as far as it is recorded."),
            "left": figure,
            "renews_at": MAYBE_MOMENT,
        }
    )
    scope = object_of(
        {
            "windows": list_of(window),
            "concurrent": {"type": ["integer", "null"]},
            "quotas": list_of(quota),
        }
    )
    return {
        "type": "object",
        "properties": {"key": scope, "account": scope},
        "description": "What holds, be it its own or not, and what was used of it. Whoever has"
        " no limits is left out.",
    }


def _with_limits(schema: Schema) -> Schema:
    return {"allOf": [schema, object_of({"in_effect": reference("LimitsInEffect")})]}


def _key_fields() -> dict[str, Schema]:
    return {
        "id": TEXT,
        "object": {"const": "key"},
        "last4": TEXT,
        "type": TEXT,
        "status": {"enum": ["active", "expired", "revoked", "suspended"]},
        "account_id": MAYBE_TEXT,
        "account": described(MAYBE_TEXT, "The account's name."),
        "note": _NOTE,
        "limits": described(_OWN_LIMITS, "Its own; null: its type's hold."),
        "created_at": MOMENT,
        "expires_at": MAYBE_MOMENT,
        "last_used_at": MAYBE_MOMENT,
        "revoked_at": MAYBE_MOMENT,
        "revoked_reason": MAYBE_TEXT,
        "line": described(MAYBE_TEXT, "The first of the keys that replaced each other."),
        "replaced_by": MAYBE_TEXT,
    }


def _key() -> Schema:
    return object_of(_key_fields())


def _account() -> Schema:
    return object_of(
        {
            "id": TEXT,
            "object": {"const": "account"},
            "name": TEXT,
            "status": {"enum": ["active", "suspended"]},
            "note": _NOTE,
            "limits": described(_OWN_LIMITS, "Its own; null: the configuration's hold."),
            "created_at": MOMENT,
            "suspended_at": MAYBE_MOMENT,
            "suspended_reason": MAYBE_TEXT,
        }
    )


def _usage_report() -> Schema:
    figure: Schema = {"type": ["number", "null"]}
    times = object_of(dict.fromkeys(("mean", "p50", "p95", "p99"), figure))
    counts = (
        "requests", "errors", "attempts", "streams", "estimated", "prompt_tokens",
        "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens",
    )  # fmt: skip
    row = object_of(
        {
            **dict.fromkeys(counts, COUNT),
            "refused": {"type": ["integer", "null"]},
            "cost": {"type": "number", "description": "USD."},
            "response_ms": times,
            "first_token_ms": times,
        }
    )
    return object_of(
        {
            "object": {"const": "usage_report"},
            "from": MOMENT,
            "to": MOMENT,
            "group_by": list_of(TEXT),
            "data": list_of(described(row, "Labelled by what it is grouped by.")),
            "totals": row,
        }
    )


def _usage_record() -> Schema:
    from manyways.store.tables import usage_attempts, usage_stats

    attempts = _columns(usage_attempts)
    del attempts["request_id"]
    fields = object_of(_columns(usage_stats))
    fields["properties"]["attempt_records"] = described(
        list_of(object_of(attempts)), "Where asked for."
    )
    return fields


def _columns(table: "Table") -> dict[str, Schema]:
    """What stands in the columns of a table. Truths are kept as numbers."""
    found: dict[str, Schema] = {}
    for column in table.columns:
        kind = _KINDS[type(column.type).__name__]
        if column.name == "stream":
            kind = {"type": "boolean"}
        found[str(column.name)] = (
            {**kind, "type": [kind["type"], "null"]} if column.nullable else kind
        )
    return found
