"""Content codings: what was compressed, piece by piece, in bounded memory.

`gzip`, `x-gzip` and `deflate` are zlib's; `br` and `zstd` have libraries, which are imported by the
first answer that needs them. What a server flushed comes out at once.

Behind the end of compressed data:
- `gzip`: further members belong to it (RFC 1952); whatever else is ignored, as browsers do;
- `deflate`: everything is ignored. It comes raw or inside zlib's format: servers disagree, and
  browsers take both;
- `br`: is refused, as curl does;
- `zstd`: further frames belong to it (RFC 8878); whatever else is refused. So is a window of more
  than 8 MiB (RFC 9659), as that is memory.
"""

import sys
import zlib
from collections.abc import Callable, Mapping
from copy import copy
from typing import Final, Protocol

from manyways.errors import Garbled

_PIECE: Final = 256 * 1024
_BROTLI_PIECE: Final = 96 * 1024  # it stops at the end of a block of its own beyond that
_EMPTY: Final = 100  # members in a row that hold nothing: to begin one costs some 50 µs
_GZIP: Final = 16 + zlib.MAX_WBITS
_GZIP_BEGINS: Final = 0x1F
_ZLIB_BEGINS: Final = 0x08  # in the lower half of the byte, where raw data has no such bits
_ZSTD_WINDOW: Final = 23  # the binary logarithm of the most it may have


class _Engine(Protocol):
    """As the decompressors of the standard library are from `lzma` on."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


_Opened = tuple[_Engine, type[Exception]]  # with what it raises
_Open = Callable[[int, bool], _Opened | None]


class Decoder:
    """Decodes one body: `feed` what came, `take` until nothing comes, `close` at the end.

    Once it has raised `Garbled` it gives nothing more, and `close` raises that again.
    """

    __slots__ = ("_begun", "_coding", "_engine", "_error", "_failure", "_ignoring", "_open",
                 "_waiting")  # fmt: skip

    def __init__(self, coding: str, open_engine: _Open) -> None:
        self._begun = 0  # members since something came out
        self._coding = coding
        self._open = open_engine
        self._engine: _Engine | None = None  # None: no byte came so far
        self._error: type[Exception] = Garbled
        self._failure: Garbled | None = None
        self._ignoring = False  # whatever comes: the data is over, or broken
        self._waiting = b""

    def __repr__(self) -> str:
        return f"<Decoder {self._coding} {self._failure or ('open', 'complete')[self._complete]}>"

    def feed(self, data: bytes) -> None:
        """Hand over the next bytes of the body. It costs least once everything was taken."""
        if not self._ignoring:
            self._waiting += data

    def take(self) -> bytes:
        """The next decoded bytes, 256 KiB at most; `b""` when more has to be fed first.

        Raises `Garbled` where the data is broken.
        """
        try:
            while engine := self._ready():
                data = b""
                if engine.needs_input:
                    data, self._waiting = self._waiting, b""
                piece = engine.decompress(data, _PIECE)
                if engine.eof:
                    self._waiting = engine.unused_data
                if piece:
                    self._begun = 0
                    return piece
        except (Garbled, self._error) as error:
            raise self._broken(str(error)) from error
        return b""

    def close(self) -> None:
        """The body is over. Raises `Garbled` where its data is not; no data at all is whole."""
        if self._failure is not None:
            raise copy(self._failure)
        if not self._complete:
            raise self._broken("it ends too early")

    @property
    def _complete(self) -> bool:
        return self._engine is None or self._engine.eof

    def _ready(self) -> _Engine | None:
        """Who has something to do; `None`: nobody."""
        engine = self._engine
        if engine is None or engine.eof:
            if not self._waiting:
                return None
            opened = self._open(self._waiting[0], engine is not None)
            if opened is None:
                self._ignoring, self._waiting = True, b""
                return None
            self._begun += 1
            if self._begun > _EMPTY:
                raise Garbled("it goes on and on, and holds nothing")
            self._engine, self._error = opened
            return self._engine
        return engine if self._waiting or not engine.needs_input else None

    def _broken(self, reason: str) -> Garbled:
        self._failure = Garbled(f"the answer's {self._coding} data is broken: {reason}")
        self._engine, self._ignoring, self._waiting = None, True, b""
        return copy(self._failure)  # which knows its frames, and so this decoder, once it is raised


def decoder_of(content_encoding: str) -> Decoder | None:
    """What decodes a body of this `Content-Encoding`.

    `None` for identity, and for what is not known: several codings, one over the other, which
    nobody sends unasked, among it.
    """
    coding = content_encoding.strip().lower()
    open_engine = _CODINGS.get(coding)
    return Decoder(coding, open_engine) if open_engine is not None else None


class _Zlib:
    """An `_Engine`."""

    __slots__ = ("_inner", "eof", "needs_input", "unused_data")

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        inner = self._inner
        piece = inner.decompress(inner.unconsumed_tail + data, max_length)
        self.needs_input = len(piece) < max_length
        self.eof, self.unused_data = inner.eof, inner.unused_data
        return piece


class _Brotli:
    """An `_Engine`. What comes together with its end and is no part of it is an error."""

    __slots__ = ("_inner", "eof", "needs_input")
    unused_data = b""

    def __init__(self) -> None:
        import brotli

        self._inner = brotli.Decompressor()
        self.eof = False
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        limit = min(max_length, _BROTLI_PIECE)
        piece: bytes = self._inner.process(data, output_buffer_limit=limit)
        # It takes more input while it holds back output: a full piece may have more behind it.
        self.needs_input = len(piece) < limit and self._inner.can_accept_more_data()
        self.eof = self._inner.is_finished()
        return piece


def _gzip(first: int, again: bool) -> _Opened | None:
    return None if again and first != _GZIP_BEGINS else (_Zlib(_GZIP), zlib.error)


def _deflate(first: int, again: bool) -> _Opened | None:
    if again:
        return None
    raw = first & 0x0F != _ZLIB_BEGINS
    return _Zlib(-zlib.MAX_WBITS if raw else zlib.MAX_WBITS), zlib.error


def _br(_first: int, again: bool) -> _Opened:
    import brotli

    if again:
        raise Garbled("something follows its end")
    return _Brotli(), brotli.error


def _zstd(_first: int, _again: bool) -> _Opened:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    window: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
    return zstd.ZstdDecompressor(options=window), zstd.ZstdError


_CODINGS: Final[Mapping[str, _Open]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _br,
    "zstd": _zstd,
}
