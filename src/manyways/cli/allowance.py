"""Limits on the command line: the options that give them, and how they are told."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from manyways.cli.records import utc
from manyways.config.quantities import seconds, write_seconds
from manyways.types import Allowance, Period, Quota

if TYPE_CHECKING:
    from manyways.config import Settings
    from manyways.operations.remainders import Remainder

SHOWN: Final = 5
"""Names of models in a warning."""
_PANEL: Final = "Limits, of its own"

Requests = Annotated[
    int | None,
    typer.Option(
        "--requests",
        metavar="N",
        help="Requests in any span of --window.",
        rich_help_panel=_PANEL,
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="TIME",
        help="The span of --requests: 30s, 1m, 24h, 7d.",
        rich_help_panel=_PANEL,
    ),
]
Tokens = Annotated[
    int | None,
    typer.Option(
        "--tokens",
        metavar="N",
        help="Tokens in any span of --tokens-window.",
        rich_help_panel=_PANEL,
    ),
]
TokensWindow = Annotated[
    str | None,
    typer.Option(
        "--tokens-window",
        metavar="TIME",
        help="The span of --tokens.",
        rich_help_panel=_PANEL,
    ),
]
Concurrent = Annotated[
    int | None,
    typer.Option("--concurrent", metavar="N", help="Requests at once.", rich_help_panel=_PANEL),
]
Quotas = Annotated[
    list[str] | None,
    typer.Option(
        "--quota",
        metavar="AMOUNT",
        help='So much in a day, a month or ever: "1000000 tokens/month", "20 usd/month",'
        ' "500 requests/day", "5 usd". May be given several times.',
        rich_help_panel=_PANEL,
    ),
]
Unlimited = Annotated[
    bool, typer.Option("--unlimited", help="No limits at all.", rich_help_panel=_PANEL)
]

_QUOTA: Final = re.compile(
    r"\s*(?P<amount>[\d_]+(?:\.\d+)?)\s*(?P<unit>tokens?|requests?|usd|\$)"
    r"\s*(?:(?:/|per|an?)\s*)?(?P<period>day|month|ever)?\s*",
    re.IGNORECASE,
)


def given(
    *,
    requests: int | None,
    window: str | None,
    tokens: int | None,
    tokens_window: str | None,
    concurrent: int | None,
    quota: Sequence[str] | None,
    unlimited: bool = False,
) -> Allowance | None:
    """The limits that the options name; `None` where they name none. Ends in misuse (status 2)
    for what makes no sense."""
    from manyways.operations import Mistake
    from manyways.operations.limits import checked

    limits = Allowance(
        requests=requests,
        window=None if window is None else duration(window, "--window"),
        tokens=tokens,
        tokens_window=None if tokens_window is None else duration(tokens_window, "--tokens-window"),
        concurrent=concurrent,
        quota=tuple(_quota(text) for text in quota or ()),
    )
    if limits == Allowance():
        return limits if unlimited else None
    if unlimited:
        raise typer.BadParameter(
            "it says that nothing is limited; give it alone.", param_hint="--unlimited"
        )
    try:
        return checked(limits)
    except Mistake as mistake:
        field = mistake.field.removeprefix("limits.").partition("[")[0]
        raise typer.BadParameter(
            str(mistake).partition(": ")[2], param_hint=f"--{field.replace('_', '-')}"
        ) from None


def duration(text: str, option: str) -> float:
    """Seconds. Ends in misuse where `text` is no duration."""
    found = seconds(text)
    if found is None or not math.isfinite(found):
        raise typer.BadParameter(
            f"{text!r} is no time like 30s, 5m, 24h or 30d.", param_hint=option
        )
    return found


def see_that_one_is_said(limits: Allowance | None, *, usual: bool) -> None:
    """Ends in misuse unless there are limits to be set, or else the usual ones asked for."""
    if limits is None and not usual:
        raise typer.BadParameter(
            "which? Name some (--requests 100 --window 1m), or --unlimited, or --usual.",
            param_hint="limits",
        )
    if limits is not None and usual:
        raise typer.BadParameter(
            "it takes the limits of its own away; give none with it.", param_hint="--usual"
        )


def plain(limits: Allowance | None) -> dict[str, Any] | None:
    """Limits of one's own as JSON has them; `None` where there are none."""
    from manyways.store.limits import plain

    return None if limits is None else plain(limits)


def warn_of_unpriced(limits: Allowance | None, settings: Settings) -> None:
    """Says on standard error which models a quota in USD does not count, if there is such one."""
    from manyways.types import NO_USAGE
    from manyways.usage.pricing import cost

    if limits is None or not any(quota.cost for quota in limits.quota):
        return
    names: list[str] = []
    for provider in settings.providers:
        if provider.models is None:
            names.append(f"those that {provider.name} tells without one")
        else:
            unpriced = (one for one in provider.models if cost(one.pricing, NO_USAGE) is None)
            names += [f"{provider.name}/{one.id}" for one in unpriced]
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        typer.echo(
            "Quotas in USD count by prices. Models without a price do not count:"
            f" {', '.join(names[:SHOWN])}{more}. Give them 'pricing' in the configuration.",
            err=True,
        )


def what_is_left(remainders: Sequence[Remainder]) -> list[str]:
    """`3.2 of 20 USD used this month, 16.8 left; renews 2026-12-01 00:00 UTC`, a line a quota."""
    return [_left(one) for one in remainders]


def words(limits: Allowance) -> str:
    """`30 requests in 1m, 2 at once, 20 USD a month`."""
    told = []
    if limits.requests and limits.window:
        told.append(f"{_counted(limits.requests, 'request')} in {write_seconds(limits.window)}")
    if limits.tokens and limits.tokens_window:
        told.append(f"{_counted(limits.tokens, 'token')} in {write_seconds(limits.tokens_window)}")
    if limits.concurrent:
        told.append(f"{limits.concurrent} at once")
    for quota in limits.quota:
        period = " in all" if quota.per == "ever" else f" a {quota.per}"
        if quota.requests:
            told.append(_counted(quota.requests, "request") + period)
        if quota.tokens:
            told.append(_counted(quota.tokens, "token") + period)
        if quota.cost:
            told.append(f"{quota.cost:.15g} USD{period}")
    return ", ".join(told) or "no limits"


def _quota(text: str) -> Quota:
    match = _QUOTA.fullmatch(text)
    if match is None:
        raise typer.BadParameter(
            f'{text!r} is none like "1000000 tokens/month", "20 usd/month" or "500 requests/day".',
            param_hint="--quota",
        )
    amount = float(match["amount"])
    per = cast("Period", (match["period"] or "ever").lower())
    unit = match["unit"].lower().removesuffix("s")
    if unit in {"usd", "$"}:
        return Quota(cost=amount, per=per)
    if not amount.is_integer():
        raise typer.BadParameter(f"{text!r} is no whole number of {unit}s.", param_hint="--quota")
    if unit == "token":
        return Quota(tokens=int(amount), per=per)
    return Quota(requests=int(amount), per=per)


def _left(one: Remainder) -> str:
    unit = "USD" if one.unit == "cost" else one.unit
    period = {"day": "today", "month": "this month", "ever": "in all"}[one.per]
    renews = "" if one.renews_at is None else f"; renews {utc(one.renews_at)} UTC"
    used, limit, left = (f"{figure:.15g}" for figure in (one.used, one.limit, one.left))
    return f"{used} of {limit} {unit} used {period}, {left} left{renews}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
