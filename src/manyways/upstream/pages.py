"""Lists of models that come in pages: what to ask for next, and all pages as one list.

How providers say that there is more, and how the next page is asked for:

- Anthropic: `has_more` and `last_id`; `?after_id=`
- Gemini: `nextPageToken`; `?pageToken=`
- Cohere: `next_page_token`; `?page_token=`
- Cloudflare: `result_info` with `page`, `per_page`, `total_count`; `?page=`

Whatever else comes back is the whole list, and handed on as it came.
"""

from typing import Final
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Struct

from manyways.errors import AttemptFailed

LIST_HEADERS: Final = (("Accept", "application/json"), ("Accept-Encoding", "gzip, br, zstd"))
"""What a list is asked for with. Some have hundreds of kilobytes, a tenth of it compressed."""

_MOST_BYTES: Final = 32 * 1024 * 1024
_MOST_MODELS: Final = 10_000
_MOST_PAGES: Final = 200
_LISTS: Final = ("data", "models", "result")
_PORTS: Final = {"https": 443, "http": 80}


class _Info(Struct):
    page: int = 1
    per_page: int = 0
    total_count: int = 0


class _Signs(Struct):
    """What an answer says of the next one."""

    has_more: bool | None = None
    last_id: str | None = None
    next_camel: str | None = msgspec.field(default=None, name="nextPageToken")
    next_snake: str | None = msgspec.field(default=None, name="next_page_token")
    result_info: _Info | None = None

    @property
    def query(self) -> str | None:
        """What is appended to the list's address for the next page; `None`: there is none."""
        if self.has_more and self.last_id:
            return f"?after_id={quote(self.last_id, safe='')}"
        if self.next_camel:
            return f"?pageToken={quote(self.next_camel, safe='')}"
        if self.next_snake:
            return f"?page_token={quote(self.next_snake, safe='')}"
        info = self.result_info
        if info and info.page > 0 and 0 < info.page * info.per_page < info.total_count:
            return f"?page={info.page + 1}"
        return None


_SIGNS: Final = msgspec.json.Decoder(_Signs)
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENTRIES: Final = msgspec.json.Decoder(list[msgspec.Raw])


class Pages:
    """The pages of one list so far: `add` each body, while there is a `query` to ask.

    `query` is what the next request appends to the list's address: nothing at first, `None`
    behind the last page. `room` is how many bytes the next body may have.
    """

    __slots__ = ("_bodies", "_entries", "_key", "_seen", "query", "room")

    def __init__(self) -> None:
        self.query: str | None = ""
        self.room = _MOST_BYTES
        self._bodies: list[bytes] = []
        self._entries: list[msgspec.Raw] = []
        self._key = ""
        self._seen: set[str] = set()

    def __repr__(self) -> str:
        return f"<Pages {len(self._bodies)}, next {self.query!r}>"

    def add(self, body: bytes) -> None:
        """Take the page that was asked for by `query`.

        A page that comes again when the next one is asked for was the last: where to go on is
        not understood there. Raises `AttemptFailed` where there is no end to the pages, or where
        a further one is no list: what is not all of it would make models disappear.
        """
        first = not self._bodies
        if not first and body == self._bodies[-1]:
            self.query = None
            return
        self._bodies.append(body)
        self.room -= len(body)
        self.query = _next(body)
        if first and self.query is None:
            return
        key, entries = _listed(body)
        if not first and key != self._key:
            raise AttemptFailed("garbled", "a page of its list of models is no such list")
        self._key = key
        self._entries += entries
        if self.query is None:
            return
        endless = self.query in self._seen or not entries or len(self._bodies) >= _MOST_PAGES
        if endless or self.room <= 0 or len(self._entries) > _MOST_MODELS:
            raise AttemptFailed("garbled", "its list of models goes on and on")
        self._seen.add(self.query)

    def joined(self) -> bytes:
        """All pages as one body; a single one as it came."""
        if len(self._bodies) == 1:
            return self._bodies[0]
        return msgspec.json.encode({self._key: self._entries})


def same_origin(one: str, other: str) -> bool:
    """Whether two addresses have the same scheme, host and port."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _next(body: bytes) -> str | None:
    try:
        return _SIGNS.decode(body).query
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None  # other fields of these names, or no object at all


def _listed(body: bytes) -> tuple[str, list[msgspec.Raw]]:
    try:
        fields = _FIELDS.decode(body)
        key = next((key for key in _LISTS if key in fields), "")
        return key, _ENTRIES.decode(fields[key]) if key else []
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return "", []
