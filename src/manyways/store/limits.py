"""Limits as they stand in a column: the JSON of an `Allowance`, what is absent left out."""

from typing import Any

import msgspec
from sqlalchemy import Connection, select

from manyways.errors import StoreError
from manyways.store.tables import accounts, api_keys
from manyways.types import Allowance


def plain(limits: Allowance) -> dict[str, Any]:
    """`limits` as JSON has them: seconds, whole numbers, and nothing that is not limited."""
    content: dict[str, Any] = {
        name: value
        for name in Allowance.__struct_fields__
        if name != "quota" and (value := getattr(limits, name)) is not None
    }
    if limits.quota:
        content["quota"] = [
            {name: value for name, value in msgspec.to_builtins(quota).items() if value is not None}
            for quota in limits.quota
        ]
    return content


def encode(limits: Allowance | None) -> str | None:
    """What is written into the column; `None` where there are no limits of one's own."""
    return None if limits is None else msgspec.json.encode(plain(limits)).decode()


def decode(column: str | None) -> Allowance | None:
    """What stands in the column. Raises `StoreError` where that is no `Allowance`."""
    if column is None:
        return None
    try:
        return msgspec.json.decode(column, type=Allowance)
    except msgspec.MsgspecError as error:
        raise StoreError(
            f"The database has limits that this version does not understand: {error}"
        ) from error


def reach(connection: Connection) -> float:
    """How far back the limits that keys and accounts have of their own count single requests, in
    seconds. Reads all of them. Raises `StoreError` as `decode` does."""
    columns = (api_keys.c.limits, accounts.c.limits)
    return max(
        (
            limits.reach
            for column in columns
            for text in connection.scalars(select(column).where(column.like("%window%")).distinct())
            if (limits := decode(text)) is not None
        ),
        default=0.0,
    )
