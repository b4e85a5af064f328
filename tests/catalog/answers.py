"""What providers answer to `GET /models`, made up in their documented shapes."""

from typing import Any, Final

import msgspec

SHAPES: Final[dict[str, Any]] = {
    "openai": {
        "object": "list",
        "data": [
            {"id": "gpt-4o", "object": "model", "created": 1715367049, "owned_by": "system"},
            {"id": "text-embedding-3-small", "object": "model", "created": 1705948997},
            {"id": "dall-e-3", "object": "model", "created": 1698785189, "owned_by": "system"},
            {"id": "gpt-4o-mini-tts", "object": "model", "created": 1742403959},
            {"id": "sora-2", "object": "model", "created": 1759708615, "owned_by": "system"},
        ],
    },
    "openrouter": {
        "data": [
            {
                "id": "anthropic/claude-sonnet-4",
                "canonical_slug": "anthropic/claude-4-sonnet-20250522",
                "name": "Anthropic: Claude Sonnet 4",
                "created": 1747930371,
                "context_length": 1000000,
                "architecture": {
                    "modality": "text+image->text",
                    "input_modalities": ["image", "text"],
                    "output_modalities": ["text"],
                    "tokenizer": "Claude",
                    "instruct_type": None,
                },
                "pricing": {
                    "prompt": "0.000003",
                    "completion": "0.000015",
                    "request": "0",
                    "image": "0.0048",
                    "input_cache_read": "0.0000003",
                },
                "top_provider": {
                    "context_length": 1000000,
                    "max_completion_tokens": 64000,
                    "is_moderated": False,
                },
                "per_request_limits": None,
                "supported_parameters": ["max_tokens", "reasoning", "structured_outputs", "tools"],
            },
            {
                "id": "openrouter/auto",
                "created": 1699401600,
                "context_length": 2000000,
                "architecture": {
                    "input_modalities": ["text", "image"],
                    "output_modalities": ["text", "image"],
                },
                "pricing": {"prompt": "-1", "completion": "-1"},
                "top_provider": {"context_length": None, "max_completion_tokens": None},
                "supported_parameters": [],
            },
            {
                "id": "google/gemini-2.5-flash-image",
                "created": 1759870431,
                "context_length": 32768,
                "architecture": {
                    "input_modalities": ["image", "text"],
                    "output_modalities": ["image", "text"],
                },
                "pricing": {"prompt": "0.0000003", "completion": "0.0000025"},
                "supported_parameters": ["max_tokens"],
            },
        ]
    },
    "groq": {
        "object": "list",
        "data": [
            {
                "id": "llama-3.3-70b-versatile",
                "object": "model",
                "created": 1733447754,
                "owned_by": "Meta",
                "active": True,
                "context_window": 131072,
                "public_apps": None,
                "max_completion_tokens": 32768,
            },
            {
                "id": "whisper-large-v3",
                "object": "model",
                "created": 1693721698,
                "owned_by": "OpenAI",
                "active": True,
                "context_window": 448,
                "max_completion_tokens": 448,
            },
            {"id": "gemma-7b-it", "object": "model", "created": 1, "active": False},
        ],
    },
    "mistral": {
        "object": "list",
        "data": [
            {
                "id": "mistral-medium-2508",
                "object": "model",
                "created": 1762000000,
                "owned_by": "mistralai",
                "capabilities": {
                    "completion_chat": True,
                    "completion_fim": False,
                    "function_calling": True,
                    "fine_tuning": False,
                    "vision": True,
                    "classification": False,
                },
                "name": "mistral-medium-2508",
                "max_context_length": 131072,
                "aliases": ["mistral-medium-latest"],
                "deprecation": None,
                "type": "base",
            },
            {
                "id": "mistral-embed",
                "object": "model",
                "created": 1762000000,
                "capabilities": {"completion_chat": False, "completion_fim": False},
                "max_context_length": 8192,
                "type": "base",
            },
            {
                "id": "mistral-ocr-latest",
                "object": "model",
                "created": 1762000000,
                "capabilities": {"completion_chat": False, "completion_fim": False},
                "max_context_length": 32768,
                "type": "base",
            },
        ],
    },
    "together": [
        {
            "id": "meta-llama/Llama-3.3-70B-Instruct-Turbo",
            "object": "model",
            "created": 1733466629,
            "type": "chat",
            "display_name": "Llama 3.3 70B",
            "organization": "Meta",
            "context_length": 131072,
            "pricing": {"hourly": 0, "input": 0.88, "output": 0.88, "base": 0, "finetune": 0},
        },
        {
            "id": "black-forest-labs/FLUX.1-schnell",
            "object": "model",
            "created": 0,
            "type": "image",
            "pricing": {"hourly": 0, "input": 0, "output": 0, "base": 0, "finetune": 0},
        },
        {"id": "Salesforce/Llama-Rank-V1", "object": "model", "created": 0, "type": "rerank"},
    ],
    "vllm": {
        "object": "list",
        "data": [
            {
                "id": "Qwen/Qwen3-8B",
                "object": "model",
                "created": 1763030400,
                "owned_by": "vllm",
                "root": "Qwen/Qwen3-8B",
                "parent": None,
                "max_model_len": 40960,
                "permission": [],
            }
        ],
    },
    "llama.cpp": {
        "models": [{"name": "small.gguf", "model": "small.gguf", "type": "model"}],
        "object": "list",
        "data": [
            {
                "id": "small.gguf",
                "object": "model",
                "created": 1763030400,
                "owned_by": "llamacpp",
                "meta": {"vocab_type": 2, "n_vocab": 49152, "n_ctx_train": 8192, "n_embd": 576},
            },
            {"id": "shared.gguf", "meta": {"n_ctx": 4096, "n_ctx_train": 131072}},
        ],
    },
    "ollama": {
        "object": "list",
        "data": [
            {"id": "llama3.2:1b", "object": "model", "created": 1731000000, "owned_by": "library"},
            {"id": "nomic-embed-text:latest", "object": "model", "created": 1731000001},
        ],
    },
    "deepseek": {
        "object": "list",
        "data": [
            {"id": "deepseek-chat", "object": "model", "owned_by": "deepseek"},
            {"id": "deepseek-reasoner", "object": "model", "owned_by": "deepseek"},
        ],
    },
    "g4f": {
        "object": "list",
        "data": [
            {
                "id": "gpt-4o",
                "object": "model",
                "created": 0,
                "owned_by": "OpenAI",
                "image": False,
                "vision": True,
                "provider": False,
            },
            {"id": "midjourney-x", "created": 0, "image": True, "provider": False},
            {"id": "PollinationsAI", "created": 0, "image": True, "provider": True},
        ],
    },
    "anthropic": {
        "data": [
            {
                "type": "model",
                "id": "claude-sonnet-4-20250514",
                "display_name": "Claude Sonnet 4",
                "created_at": "2025-05-14T00:00:00Z",
            },
            {
                "type": "model",
                "id": "claude-future-9",
                "display_name": "Claude Future 9",
                "created_at": "2026-03-01T12:30:00.5+02:00",
                "max_input_tokens": 1000000,
                "max_tokens": 128000,
                "capabilities": {
                    "batch": {"supported": True},
                    "image_input": {"supported": True},
                    "structured_outputs": {"supported": False},
                    "thinking": {
                        "supported": True,
                        "types": {"adaptive": {"supported": True}},
                    },
                },
            },
        ],
        "has_more": False,
        "first_id": "claude-sonnet-4-20250514",
        "last_id": "claude-future-9",
    },
    "gemini": {
        "models": [
            {
                "name": "models/gemini-2.5-flash",
                "version": "001",
                "displayName": "Gemini 2.5 Flash",
                "description": "A fast model.",
                "inputTokenLimit": 1048576,
                "outputTokenLimit": 65536,
                "supportedGenerationMethods": ["generateContent", "countTokens"],
                "temperature": 1,
                "topP": 0.95,
                "thinking": True,
            },
            {
                "name": "models/gemini-embedding-001",
                "inputTokenLimit": 2048,
                "outputTokenLimit": 1,
                "supportedGenerationMethods": ["embedContent", "countTextTokens"],
            },
            {
                "name": "models/imagen-4.0-generate-001",
                "inputTokenLimit": 480,
                "outputTokenLimit": 8192,
                "supportedGenerationMethods": ["predict"],
            },
            {
                "name": "models/veo-9-future",
                "supportedGenerationMethods": ["predictLongRunning"],
            },
            {
                "name": "models/gemini-2.5-flash-live",
                "supportedGenerationMethods": ["bidiGenerateContent", "countTokens"],
            },
            {"name": "models/aqa", "supportedGenerationMethods": ["generateAnswer"]},
        ],
        "nextPageToken": "",
    },
    "gemini as openai": {
        "object": "list",
        "data": [
            {"id": "models/gemini-2.5-pro", "object": "model", "owned_by": "google"},
            {"id": "models/text-embedding-004", "object": "model", "owned_by": "google"},
        ],
    },
    "cohere": {
        "models": [
            {
                "name": "command-r-plus-08-2024",
                "endpoints": ["generate", "chat", "summarize"],
                "finetuned": False,
                "context_length": 132096,
                "tokenizer_url": "https://example.com/command-r-plus-08-2024.json",
                "default_endpoints": [],
            },
            {
                "name": "embed-v9.0",
                "endpoints": ["embed", "classify"],
                "finetuned": False,
                "context_length": 8192,
            },
            {"name": "multi-sort-v3", "endpoints": ["rerank"], "context_length": 4096},
        ],
        "next_page_token": "",
    },
    "deepinfra": {
        "object": "list",
        "data": [
            {
                "id": "Qwen/Qwen3-235B-A22B-Instruct-2507",
                "object": "model",
                "created": 1753142400,
                "owned_by": "deepinfra",
                "root": "Qwen/Qwen3-235B-A22B-Instruct-2507",
                "parent": None,
                "metadata": {
                    "description": "A large one.",
                    "context_length": 262144,
                    "max_tokens": 16384,
                    "pricing": {
                        "input_tokens": 0.13,
                        "output_tokens": 0.6,
                        "cache_read_tokens": 0.05,
                    },
                    "tags": ["prompt_cache", "reasoning"],
                },
            },
            {"id": "BAAI/bge-m3", "object": "model", "metadata": None},
        ],
    },
    "github": [
        {
            "id": "openai/gpt-4.1",
            "name": "OpenAI GPT-4.1",
            "publisher": "OpenAI",
            "registry": "azure-openai",
            "summary": "A model.",
            "version": "2025-04-14",
            "capabilities": ["streaming", "tool-calling"],
            "limits": {"max_input_tokens": 1048576, "max_output_tokens": 32768},
            "rate_limit_tier": "high",
            "supported_input_modalities": ["text", "image"],
            "supported_output_modalities": ["text"],
            "tags": ["multipurpose"],
        },
        {
            "id": "openai/text-embedding-3-large",
            "name": "OpenAI Text Embedding 3 (large)",
            "limits": {"max_input_tokens": 8191, "max_output_tokens": None},
            "supported_input_modalities": ["text"],
            "supported_output_modalities": ["embeddings"],
        },
    ],
    "github, formerly": [
        {
            "id": "azureml://registries/azure-openai/models/gpt-4o/versions/2",
            "name": "gpt-4o",
            "friendly_name": "OpenAI GPT-4o",
            "model_version": 2,
            "task": "chat-completion",
        }
    ],
    "cloudflare": {
        "result": [
            {
                "id": "429b9e8b-d99e-44de-91ad-706cf8183658",
                "source": 1,
                "name": "@cf/meta/llama-3.1-8b-instruct-fp8",
                "description": "A small one.",
                "task": {"id": "c329a1f9", "name": "Text Generation", "description": ""},
                "tags": [],
                "properties": [
                    {
                        "property_id": "price",
                        "value": [
                            {"unit": "per M input tokens", "price": 0.15, "currency": "USD"},
                            {"unit": "per M output tokens", "price": 0.29, "currency": "USD"},
                            {"unit": "per audio minute", "price": 1, "currency": "USD"},
                        ],
                    },
                    {"property_id": "context_window", "value": "32000"},
                    {"property_id": "function_calling", "value": "true"},
                    {"property_id": "beta", "value": "false"},
                ],
            },
            {
                "id": "9e087485-23dc-47fa-997d-f5bfafc0c7cc",
                "name": "@cf/lykon/dreamshaper-8-lcm",
                "task": {"name": "Text-to-Image"},
                "properties": [],
            },
            {
                "id": "eaf31752-a074-441f-8b70-d593255d2811",
                "name": "@cf/facebook/detr-resnet-50",
                "task": {"name": "Object Detection"},
                "properties": [],
            },
        ],
        "success": True,
        "errors": [],
        "messages": [],
        "result_info": {"count": 3, "page": 1, "per_page": 50, "total_count": 3},
    },
    "pollinations": [
        {
            "name": "openai-fast",
            "description": "A fast one",
            "provider": "azure",
            "tier": "anonymous",
            "community": False,
            "aliases": ["gpt-5-nano"],
            "input_modalities": ["text", "image"],
            "output_modalities": ["text"],
            "tools": True,
            "vision": True,
            "audio": False,
            "maxInputChars": 5000,
        },
        {
            "name": "listener",
            "description": "Hears, and writes",
            "input_modalities": ["text", "image", "audio"],
            "output_modalities": ["text"],
            "tools": True,
            "vision": True,
            "audio": True,
        },
        {
            "name": "speaker",
            "description": "Speaks",
            "aliases": "gpt-4o-mini-audio-preview",
            "voices": ["alloy", "echo"],
            "input_modalities": ["text", "audio"],
            "output_modalities": ["audio", "text"],
            "tools": True,
            "vision": False,
            "audio": True,
        },
        {
            "name": "thinker",
            "reasoning": True,
            "input_modalities": ["text"],
            "output_modalities": ["text"],
            "tools": False,
            "vision": False,
        },
    ],
    "pollinations, pictures": ["flux", "turbo", "gptimage"],
    "pollinations, pictures with prices": [
        {
            "name": "zimage",
            "aliases": ["z-image"],
            "pricing": {"currency": "pollen", "completion": 0.0002, "image": 0.0002},
            "input_modalities": ["text"],
            "output_modalities": ["image"],
        }
    ],
    "ollama's own": {
        "models": [
            {
                "name": "llama3.1:8b",
                "model": "llama3.1:8b",
                "modified_at": "2025-09-04T10:11:12.123456789+02:00",
                "size": 4920753328,
                "digest": "46e0c10c039e",
                "details": {
                    "parent_model": "",
                    "format": "gguf",
                    "family": "llama",
                    "families": ["llama"],
                    "parameter_size": "8.0B",
                    "quantization_level": "Q4_K_M",
                },
            },
            {
                "name": "snowflake-arctic:latest",
                "model": "snowflake-arctic:latest",
                "modified_at": "2025-09-04T10:11:12Z",
                "details": {"family": "bert", "families": ["bert"]},
            },
            {
                "name": "looker:7b",
                "model": "looker:7b",
                "details": {"family": "llama", "families": ["llama", "clip"]},
            },
        ]
    },
    "lm studio": {
        "object": "list",
        "data": [
            {
                "id": "somebody-7b",
                "object": "model",
                "type": "vlm",
                "publisher": "somebody",
                "state": "loaded",
                "max_context_length": 131072,
                "loaded_context_length": 4096,
                "capabilities": ["tool_use"],
            },
            {"id": "another", "type": "embeddings", "max_context_length": 2048},
        ],
    },
    "new api": {
        "object": "list",
        "success": True,
        "data": [
            {"id": "painter-2", "supported_endpoint_types": ["image-generation", "openai"]},
            {"id": "vectors-2", "supported_endpoint_types": ["embeddings"]},
            {"id": "talker-2", "supported_endpoint_types": ["openai", "anthropic"]},
            {"id": "sorter-2", "supported_endpoint_types": ["jina-rerank"]},
            {"id": "director-2", "supported_endpoint_types": ["openai-video"]},
        ],
    },
    "manyways": {
        "object": "list",
        "data": [
            {
                "id": "someone/whatever",
                "object": "model",
                "created": 1731654208,
                "provider": "Capi",
                "category": "audio",
                "context_window": 128000,
                "max_output_tokens": 16384,
                "capabilities": ["tools", "vision", "telepathy"],
                "modalities": ["text", "image"],
                "pricing": {"prompt": 2.5e-06, "completion": 1e-05},
            }
        ],
    },
}


def answer(shape: str) -> bytes:
    """The body that such a provider sends."""
    return msgspec.json.encode(SHAPES[shape])
