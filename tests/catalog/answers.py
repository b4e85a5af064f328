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
