"""Every route, a row each: methods, path, what it runs.

Routes of the vendors' APIs hang under each mount; ours stand once, at the root.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from manyways.edge.exchange import Exchange
from manyways.edge.settings import ErrorFormat, Settings
from manyways.errors import Refusal

Endpoint = Callable[[Exchange], Awaitable[None]]
EndpointOf = Callable[[Exchange, str], Awaitable[None]]
"""What runs where a path has `{id}` in it: it is told what stands there."""

_ID = "{id}"

NOT_YET = {
    "/completions": "complete a bare prompt",
    "/responses": "use the Responses API",
    "/messages": "use Anthropic's Messages API",
    "/embeddings": "get embeddings",
    "/images/generations": "make images",
    "/images/edits": "edit images",
    "/audio/speech": "make speech",
    "/audio/transcriptions": "transcribe speech",
    "/audio/translations": "translate speech",
    "/videos": "make videos",
    "/moderations": "moderate texts",
    "/rerank": "rerank documents",
}
"""What callers ask such gateways for and we do not serve yet: they are told so."""


class Route(NamedTuple):
    """One path: what each method runs, and the format its errors are told in."""

    endpoints: Mapping[str, Endpoint]
    error_format: ErrorFormat

    @property
    def methods(self) -> str:
        """For `Allow`: `"GET, HEAD, OPTIONS"`."""
        return ", ".join((*self.endpoints, "OPTIONS"))

    def refusal(self, method: str) -> Refusal:
        """Why `method` runs nothing here."""
        if not self.endpoints:
            return Refusal(
                "not_found",
                "There is no such route; POST /v1/chat/completions and GET /v1/models exist.",
            )
        return Refusal("method_not_allowed", f"{method} is not served here; {self.methods} are.")


class Routes:
    """Finds a path's route: by a dictionary, else by what stands before an id and behind it.

    The id of a model may contain slashes, that of anything else none.
    """

    def __init__(
        self,
        settings: Settings,
        mounted: Mapping[str, Mapping[str, Endpoint]],
        rooted: Mapping[str, Mapping[str, Endpoint]],
        *,
        model: EndpointOf,
        with_id: Mapping[str, Mapping[str, EndpointOf]] | None = None,
    ) -> None:
        """`with_id` are routes at the root with one `{id}` in their path."""
        self._exact: dict[str, Route] = {}
        self._models: list[tuple[str, ErrorFormat]] = []
        self._mounts: list[tuple[str, ErrorFormat]] = []
        self._model = model
        # By what stands before the id, then by what stands behind it.
        self._with_id: dict[str, dict[str, Mapping[str, EndpointOf]]] = {}
        for path, of_one in (with_id or {}).items():
            before, _, behind = path.partition(_ID)
            self._with_id.setdefault(before, {})[behind] = of_one
        self._error_format = settings.error_format
        for path, endpoints in rooted.items():
            self._exact[path] = Route(endpoints, settings.error_format)
        for mount in settings.mounts:
            error_format = mount.error_format or settings.error_format
            for path, endpoints in mounted.items():
                self._exact[mount.path + path] = Route(endpoints, error_format)
            self._models.append((f"{mount.path}/models/", error_format))
            self._mounts.append((f"{mount.path}/", error_format))

    def __repr__(self) -> str:
        return f"<Routes {', '.join(self._exact)}>"

    def table(self) -> Iterator[tuple[str, str]]:
        """Each method and path that is served."""
        for path, route in self._exact.items():
            yield from ((method, path) for method in route.endpoints)
        for prefix, _ in self._models:
            yield from ((method, prefix + _ID) for method in ("GET", "HEAD"))
        for before, paths in self._with_id.items():
            for behind, endpoints in paths.items():
                yield from ((method, before + _ID + behind) for method in endpoints)

    def find(self, path: str) -> Route:
        """The route of `path`; one without endpoints where there is none."""
        route = self._exact.get(path)
        if route is not None:
            return route
        for prefix, error_format in self._models:
            if path.startswith(prefix) and len(path) > len(prefix):
                one = partial(_run, self._model, path[len(prefix) :])
                return Route({"GET": one, "HEAD": one}, error_format)
        for before, paths in self._with_id.items():
            if path.startswith(before):
                found, slash, rest = path[len(before) :].partition("/")
                endpoints = paths.get(slash + rest) if found else None
                if endpoints is not None:
                    of_it = {name: partial(_run, of, found) for name, of in endpoints.items()}
                    return Route(of_it, self._error_format)
        for prefix, error_format in self._mounts:
            if path.startswith(prefix) or path == prefix[:-1]:
                return Route({}, error_format)
        return Route({}, self._error_format)


async def _run(endpoint: EndpointOf, found: str, exchange: Exchange) -> None:
    await endpoint(exchange, found)
