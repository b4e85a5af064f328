"""The public shapes of the catalog, field by field in the order in which they are sent.

RVFreeLLM's fields come first, then ours. What has not been measured is null, and there.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from msgspec import Struct

from manyways.types import Category, Model, Status


class ModelPermission(Struct, frozen=True, kw_only=True):
    """OpenAI's former `model_permission`, which old clients still read. It restricts nothing."""

    id: str
    object: Literal["model_permission"] = "model_permission"
    created: int
    allow_create_engine: bool = False
    allow_sampling: bool = True
    allow_logprobs: bool = True
    allow_search_indices: bool = False
    allow_view: bool = True
    allow_fine_tuning: bool = False
    organization: str = "*"
    group: str | None = None
    is_blocking: bool = False


class ModelRow(Struct, frozen=True, kw_only=True):
    """A model in `data` of `GET /models`, and the whole answer of `GET /models/{id}`."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    permission: tuple[ModelPermission, ...]
    provider: str
    category: Category
    latency_ms: int | None
    quality_score: float | None
    last_verified: str | None
    context_window: int | None
    max_output_tokens: int | None
    capabilities: tuple[str, ...]
    modalities: tuple[str, ...] | None
    pricing: dict[str, float] | None
    status: Status
    uptime_24h: float | None


class ProviderCapabilities(Struct, frozen=True, kw_only=True):
    """Of which kinds a provider has models."""

    text: bool
    image: bool
    audio: bool
    video: bool


class ModelCounts(Struct, frozen=True, kw_only=True):
    """How many models a provider has. Embeddings count in `total` only."""

    total: int
    text: int
    image: int
    audio: int
    video: int


class ProviderPerformance(Struct, frozen=True, kw_only=True):
    """Means over the models that have been measured."""

    avg_latency_ms: int | None
    avg_quality_score: float | None


class ProviderRow(Struct, frozen=True, kw_only=True):
    """A provider in `data` of `GET /providers`. `created` is its oldest model's, null while it
    has none; `last_verified` is its latest model's."""

    id: str
    object: Literal["provider"] = "provider"
    created: int | None
    name: str
    capabilities: ProviderCapabilities
    models: ModelCounts
    performance: ProviderPerformance
    last_verified: str | None


def model_row(model: Model) -> ModelRow:
    """The model as callers see it. What the provider calls it is nobody's business."""
    permission = ModelPermission(id=f"modelperm-{model.id}-0", created=model.created)
    return ModelRow(
        id=model.id,
        created=model.created,
        owned_by=model.provider,
        permission=(permission,),
        provider=model.provider,
        category=model.category,
        latency_ms=model.latency_ms,
        quality_score=model.quality_score,
        last_verified=model.last_verified,
        context_window=model.context_window,
        max_output_tokens=model.max_output_tokens,
        capabilities=model.capabilities,
        modalities=model.modalities,
        pricing=model.pricing,
        status=model.status,
        uptime_24h=model.uptime_24h,
    )


def provider_row(name: str, models: Sequence[Model]) -> ProviderRow:
    """The provider as callers see it, counted over the models given."""
    categories = [model.category for model in models]
    counts = ModelCounts(
        total=len(models),
        text=categories.count("text"),
        image=categories.count("image"),
        audio=categories.count("audio"),
        video=categories.count("video"),
    )
    latencies = [model.latency_ms for model in models if model.latency_ms is not None]
    scores = [model.quality_score for model in models if model.quality_score is not None]
    # In this format, the later text is the later moment.
    verified = [model.last_verified for model in models if model.last_verified is not None]
    return ProviderRow(
        id=name,
        created=min((model.created for model in models), default=None),
        name=name,
        capabilities=ProviderCapabilities(
            text=counts.text > 0,
            image=counts.image > 0,
            audio=counts.audio > 0,
            video=counts.video > 0,
        ),
        models=counts,
        performance=ProviderPerformance(
            avg_latency_ms=round(fmean(latencies)) if latencies else None,
            avg_quality_score=round(fmean(scores), 1) if scores else None,
        ),
        last_verified=max(verified, default=None),
    )
