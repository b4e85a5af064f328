"""Every route, a row each: methods, path, what it runs.

Routes of the vendors' APIs hang under each mount; ours stand once, at the root.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from manyways.edge.exchange import Exchange
from manyways.edge.settings import ErrorFormat, Settings
from manyways.errors import Refusal

Endpoint = Callable[[Exchange], Awaitable[None]]

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
    """Finds a path's route: by a dictionary, and under `/models/` by what stands before the id."""

    def __init__(
        self,
        settings: Settings,
        mounted: Mapping[str, Mapping[str, Endpoint]],
        rooted: Mapping[str, Mapping[str, Endpoint]],
        *,
        model: Callable[[Exchange, str], Awaitable[None]],
    ) -> None:
        self._exact: dict[str, Route] = {}
        self._models: list[tuple[str, ErrorFormat]] = []
        self._mounts: list[tuple[str, ErrorFormat]] = []
        self._model = model
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

    def find(self, path: str) -> Route:
        """The route of `path`; one without endpoints where there is none."""
        route = self._exact.get(path)
        if route is not None:
            return route
        for prefix, error_format in self._models:
            if path.startswith(prefix) and len(path) > len(prefix):
                model_id = path[len(prefix) :]

                async def one(exchange: Exchange, model_id: str = model_id) -> None:
                    await self._model(exchange, model_id)

                return Route({"GET": one, "HEAD": one}, error_format)
        for prefix, error_format in self._mounts:
            if path.startswith(prefix) or path == prefix[:-1]:
                return Route({}, error_format)
        return Route({}, self._error_format)
