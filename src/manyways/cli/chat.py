"""`manyways chat`: one question and its answer, or a conversation on a terminal."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from manyways.cli import called, output
from manyways.cli.address import LOOPBACK, origin, running
from manyways.cli.options import ConfigFile
from manyways.errors import ManywaysError, StoreError

if TYPE_CHECKING:
    from manyways.cli.gateway import Answer, Gateway, Question
    from manyways.config import Settings
    from manyways.operations import CreatedKey

KEY_TYPE: Final = "test"
"""The type of the key that a chat without one makes for itself."""

_RENEWED_BEFORE: Final = 60.0  # seconds before its end, a key of our own is replaced


def chat(
    message: Annotated[
        str | None,
        typer.Argument(metavar="MESSAGE", help="What to ask. Without it: a conversation."),
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="Default: the gateway's first text model."
        ),
    ] = None,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="The provider to begin with.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The gateway to ask, like https://llm.example.com/v1; else the one that serves the"
            " configured database.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar="MANYWAYS_API_KEY",
            help="Your key. Without one, and beside the gateway's database, a key of type test"
            " is made for the chat and revoked at its end.",
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A system message to begin with.")
    ] = None,
    config: ConfigFile = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="One JSON document on standard output, failed or not."),
    ] = False,
) -> None:
    """Talk with a model through the running gateway.

    On a terminal: a conversation, with Markdown drawn as it comes; /help
    there tells what else can be done.

    With a MESSAGE, or with one on standard input (all of it is one message,
    however many lines), the answer alone is streamed to standard output as
    plain text: manyways chat < question.txt

    Exit status 1: there is no whole answer. One that broke off is said to be
    cut.
    """
    from manyways.cli.gateway import Answer, GatewayFailed, Message, Question

    answer = Answer()
    try:
        if message is None and (json or not (sys.stdin.isatty() and sys.stdout.isatty())):
            message = _standard_input()
        if message is not None and not message.strip():
            raise typer.BadParameter("it is empty; there is nothing to ask.", param_hint="MESSAGE")
        with _cleanly_ended(), _gateway(url, key, config) as gateway:
            chosen = model or asyncio.run(_first_model(gateway, provider))
            if message is None:
                from manyways.cli.conversation import Conversation

                Conversation(gateway, chosen, provider=provider or "", system=system or "").run()
                return
            opening = [Message("system", system)] if system else []
            question = Question(
                model=chosen,
                messages=[*opening, Message("user", message)],
                provider=provider or "",
            )
            _answer_once(gateway, question, answer, as_json=json)
    except ManywaysError as error:
        cut = bool(answer.content) and isinstance(error, GatewayFailed)
        said = _words(error)
        typer.echo(f"The answer is cut: {said}" if cut else said, err=True)
        if json:
            _print_json(answer, error)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        if json:
            _print_json(answer, GatewayFailed("stopped", "Stopped."))
        raise typer.Exit(1) from None
    if json:
        _print_json(answer, None)


def _standard_input() -> str:
    if sys.stdin.isatty():
        typer.echo("Write the message, then Ctrl-D.", err=True)
    return sys.stdin.buffer.read().decode(errors="replace").removesuffix("\n")


def _answer_once(gateway: Gateway, question: Question, answer: Answer, *, as_json: bool) -> None:
    """The answer as plain text on standard output, each piece as it comes."""
    terminal = sys.stdout.isatty()
    ends_line = True

    def tell(text: str) -> None:
        nonlocal ends_line
        if terminal:
            from manyways.cli.markdown import printable

            text = printable(text)
        sys.stdout.write(text)
        sys.stdout.flush()
        ends_line = text.endswith("\n") if text else ends_line

    try:
        asyncio.run(gateway.ask(question, answer, _nothing if as_json else tell))
    finally:
        if not ends_line:
            sys.stdout.write("\n")
            sys.stdout.flush()


def _nothing(_text: str) -> None:
    pass


async def _first_model(gateway: Gateway, provider: str | None) -> str:
    from manyways.cli.gateway import GatewayFailed

    found = await gateway.models(category="text", provider=provider)
    if not found:
        raise GatewayFailed(
            "no_models",
            "The gateway has no text model now. Which provider fails, and why:"
            f" {called.line('doctor')}",
        )
    return found[0].id


@contextmanager
def _gateway(url: str | None, key: str | None, config: Path | None) -> Iterator[Gateway]:
    """The gateway to ask. Raises `ConfigError` where the configuration is needed and wrong."""
    from manyways.cli.gateway import Gateway
    from manyways.config import Settings, load

    settings = Settings() if url and key else load(config)
    mount = settings.server.mounts[0].path
    cure = f"Start it with: {called.line('serve')}"
    if url is not None:
        host, address = _given(url, mount)
        if host not in LOOPBACK:
            cure = "See that the address is right and the gateway runs there."
    else:
        host, address = _configured(settings, mount)
    if key:
        yield Gateway(address, lambda: key, cure=cure, upstream=settings.upstream)
        return
    # A secret of this machine's database is nothing to send to another machine.
    own = _OwnKey(settings if url is None or host in LOOPBACK else None)
    try:
        yield Gateway(address, own, cure=cure, upstream=settings.upstream)
    finally:
        own.revoke("the chat ended")


def _given(url: str, mount: str) -> tuple[str, str]:
    """The host and the whole address that `--url` means."""
    try:
        address = urlsplit(url.rstrip("/"))
        _ = address.port
    except ValueError:
        address = urlsplit("")
    host = address.hostname
    if address.scheme not in {"http", "https"} or not host or not url.isprintable():
        raise typer.BadParameter(
            f"{url!r} is no address like http://127.0.0.1:8080/v1.", param_hint="--url"
        )
    if not address.path:
        address = address._replace(path=mount)
    return host, address._replace(query="", fragment="").geturl()


def _configured(settings: Settings, mount: str) -> tuple[str, str]:
    found = running(settings) or origin(settings.server.host, settings.server.port)
    return urlsplit(found).hostname or "", f"{found}{mount}"


class _OwnKey:
    """A key made when one is first needed, replaced before it expires, revoked at the end.

    `settings` name the database to make it in; `None` where none may be made.
    """

    def __init__(self, settings: Settings | None) -> None:
        self._settings = settings
        self._made: CreatedKey | None = None

    def __repr__(self) -> str:
        return f"<OwnKey {self._made!r}>"

    def __call__(self) -> str:
        """The secret. Raises `GatewayFailed`, `StoreError`."""
        now = time.time()
        made = self._made
        if made is None or (
            made.expires_at is not None and made.expires_at - now < _RENEWED_BEFORE
        ):
            self.revoke("replaced by a fresh one")
            made = self._made = self._new(now)
        return made.key

    def revoke(self, reason: str) -> None:
        """End the key. One that cannot be revoked now ends by itself, soon."""
        made, self._made = self._made, None
        if made is None or self._settings is None:
            return
        from manyways.operations import revoke_key
        from manyways.store.database import open_database

        with suppress(StoreError):
            database = open_database(self._settings.database)
            try:
                revoke_key(database, made.id, reason=reason, now=time.time())
            finally:
                database.close()

    def _new(self, now: float) -> CreatedKey:
        from manyways.cli.gateway import GatewayFailed
        from manyways.operations import create_key
        from manyways.store.database import is_there, open_database

        settings = self._settings
        if (
            settings is None
            or KEY_TYPE not in settings.keys.types
            or not is_there(settings.database)
        ):
            raise GatewayFailed(
                "no_key",
                "The gateway wants a key: set MANYWAYS_API_KEY, or give one with --key. Where the"
                f" gateway runs, one is made with: {called.line('keys create')}",
            )
        database = open_database(settings.database)
        try:
            return create_key(database, settings.keys, KEY_TYPE, note="chat", now=now)
        finally:
            database.close()


@contextmanager
def _cleanly_ended() -> Iterator[None]:
    """A closed terminal or SIGTERM ends the chat as Ctrl-D does: its key is revoked."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(1)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _words(error: ManywaysError) -> str:
    from manyways.cli.gateway import GatewayFailed

    if not isinstance(error, GatewayFailed):
        return str(error)
    from manyways.cli.markdown import printable

    return printable(error.explained())


def _print_json(answer: Answer, error: ManywaysError | None) -> None:
    document: dict[str, Any] = {
        "model": answer.model,
        "provider": answer.provider,
        "content": answer.content,
        "reasoning": answer.reasoning or None,
        "usage": answer.usage,
        "finish_reason": answer.finish_reason,
        "first_token_ms": answer.first_token_ms,
        "total_ms": answer.total_ms,
        "error": None,
    }
    if error is not None:
        document["error"] = {
            **getattr(error, "error", {}),
            "code": getattr(error, "code", "failed"),
            "message": str(error),
            "retry_after": getattr(error, "retry_after", None),
            "request_id": getattr(error, "request_id", None),
        }
    output.document(document)
