"""Foreign failures become ours at one seam, whichever vendor's words they come in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.errors import (
    AttemptFailed,
    ConnectFailed,
    OutOfSockets,
    Refusal,
    Reset,
    TlsFailed,
    TransportError,
)
from manyways.upstream.failures import from_status, from_transport

NOW = 1_800_000_000.0


def told(
    status: int, body: object = b"", headers: dict[str, str] | None = None
) -> Refusal | AttemptFailed:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return from_status(status, headers or {}, data, NOW)


def error(message: str, code: object = None, **more: object) -> dict[str, object]:
    """OpenAI's shape."""
    return {"error": {"message": message, "type": "invalid_request_error", "code": code, **more}}


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": {"message": "Invalid API Key", "code": "invalid_api_key"}}, "credentials"),
        (400, {"error": {"message": "API key not valid. Please pass one."}}, "credentials"),
        (400, {"error": "Insufficient credits"}, "credentials"),
        (401, b"", "credentials"),
        (402, {"error": {"message": "pay"}}, "credentials"),
        (403, {"detail": "forbidden"}, "credentials"),
        (403, b"<html>", "provider_error"),
        (403, b"", "provider_error"),
        (404, {"error": {"message": "The model `x` does not exist"}}, "model_gone"),
        (404, {"error": {"code": "model_not_found", "message": "gone"}}, "model_gone"),
        (400, {"error": {"message": "The model `x` has been decommissioned"}}, "model_gone"),
        (410, b"", "model_gone"),
        (429, {"error": {"message": "slow down"}}, "rate_limited"),
        (408, b"", "provider_error"),
        (409, b"", "provider_error"),
        (425, b"", "provider_error"),
        (500, b"<html>", "provider_error"),
        (502, b"", "provider_error"),
        (529, {"type": "error", "error": {"type": "overloaded_error"}}, "provider_error"),
        (302, b"", "provider_error"),
        (405, b"", "provider_error"),
    ],
)
def test_what_is_not_the_callers_fault_is_a_failed_attempt(
    status: int, body: object, code: str
) -> None:
    found = told(status, body)
    assert isinstance(found, AttemptFailed)
    assert (found.code, found.status) == (code, status)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": {"message": "tools[0] is wrong", "code": "bad"}}, "provider_refused"),
        (413, b"", "provider_refused"),
        (422, {"detail": [{"loc": ["body"], "msg": "no"}]}, "provider_refused"),
        (404, {"error": {"message": "no such route"}}, "provider_refused"),
        (400, {"object": "error", "message": "top_p is wrong", "code": 40001}, "provider_refused"),
        (
            400,
            {"error": {"message": "This model's maximum context length is 8192 tokens."}},
            "context_length_exceeded",
        ),
        (400, [{"error": {"message": "prompt is too long"}}], "context_length_exceeded"),
        (400, {"error": {"code": "content_filter", "message": "no"}}, "content_filter"),
    ],
)
def test_what_the_caller_caused_goes_to_the_caller(status: int, body: object, code: str) -> None:
    found = told(status, body)
    assert isinstance(found, Refusal)
    assert found.code == code


@pytest.mark.parametrize("status", [400, 404, 422])
@pytest.mark.parametrize("body", [b"", b"<html>Bad Request", b"Bad Request", b"{}", b"[]", b"null"])
def test_what_the_caller_caused_comes_with_words(status: int, body: bytes) -> None:
    found = told(status, body)
    assert isinstance(found, AttemptFailed)
    assert found.code == "provider_error"


@pytest.mark.parametrize(
    "body",
    [
        {"detail": "Not Found"},
        {"message": "no Route matched with those values"},
        {"result": None, "success": False, "errors": [{"code": 7003, "message": "No route"}]},
        b"<html>404",
    ],
)
def test_a_404_that_is_no_error_object_is_a_wrong_address(body: object) -> None:
    found = told(404, body)
    assert isinstance(found, AttemptFailed)
    assert found.code == "provider_error"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        # Google
        (
            404,
            [
                {
                    "error": {
                        "code": 404,
                        "message": "models/gemini-9 is not found for API version v1main, or is not"
                        " supported for generateContent.",
                        "status": "NOT_FOUND",
                    }
                }
            ],
        ),
        # OpenAI
        (403, error("Project `proj_a` does not have access to model `o9`", "model_not_found")),
        (404, error("This model is only supported in v1/responses and not in v1/chat.")),
        (404, error("This is not a chat model and thus not supported in the endpoint.")),
        (404, error("Unknown.", param="model")),
        (400, error("invalid model ID")),
        # Azure
        (404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for"}}),
        (400, {"error": {"code": "OperationNotSupported", "message": "Please choose another"}}),
        # Anthropic
        (404, {"type": "error", "error": {"type": "not_found_error", "message": "model: c-9"}}),
        # Mistral
        (400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model"}),
        # DeepSeek
        (400, error("Model Not Exist", "invalid_request_error")),
        # OpenRouter
        (400, {"error": {"message": "a/b is not a valid model ID", "code": 400}}),
        (404, {"error": {"message": "No endpoints found for a/b.", "code": 404}}),
        # Together
        (404, error("Unable to access model a/b.", "model_not_available")),
        # Groq
        (400, error("The model `x` has been decommissioned and is no longer supported.")),
        # xAI
        (404, {"code": "not found", "error": "The model x does not exist or your team has no"}),
        # Cloudflare
        (400, {"success": False, "errors": [{"code": 5007, "message": "No such model @cf/x"}]}),
        # Ollama, Pollinations, vLLM, Hugging Face
        (404, {"error": "model 'x' not found"}),
        (404, {"error": 'model "x" not found, try pulling it first'}),
        (404, {"error": "Model not found: turbo", "status": 404}),
        (404, {"object": "error", "message": "The model `x` does not exist.", "code": 404}),
        (422, error("The requested model 'x' is not supported by any provider you have enabled.")),
    ],
)
def test_a_model_that_is_gone_is_known_in_every_vendors_words(status: int, body: object) -> None:
    found = told(status, body)
    assert isinstance(found, AttemptFailed)
    assert found.code == "model_gone"


@pytest.mark.parametrize(
    "message",
    [
        "Unsupported parameter: 'max_tokens' is not supported with this model.",
        "`tool calling` is not supported with this model",
        "This model is not supported with tools.",
        "The model produced an invalid tool call: tool foo not found",
        "Failed to parse tool call arguments: invalid model output",
        "The model does not support images.",
        "Image in message 2 not found",
        "max_tokens is too large: 100000. This model supports at most 16384 tokens.",
        "Invalid 'tools[0].function.name': string too long, maximum length 64.",
        "The API key of the request's metadata is long",
    ],
)
def test_what_a_model_cannot_do_is_the_requests_fault_and_does_not_take_it_out_of_use(
    message: str,
) -> None:
    found = told(400, error(message))
    assert isinstance(found, Refusal)
    assert (found.code, found.message) == ("provider_refused", message)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        # OpenAI: no credit comes as a 429
        (429, error("You exceeded your current quota", "insufficient_quota")),
        (429, {"error": {"message": "You exceeded your quota", "type": "insufficient_quota"}}),
        (429, error("Your account is not active", "billing_not_active")),
        (400, error("Billing hard limit has been reached", "billing_hard_limit_reached")),
        # Google
        (
            400,
            [
                {
                    "error": {
                        "code": 400,
                        "message": "API key expired. Please renew the API key.",
                        "status": "INVALID_ARGUMENT",
                        "details": [{"reason": "API_KEY_INVALID"}],
                    }
                }
            ],
        ),
        (400, error('{"error": {"code": 400, "message": "API key not valid. Please pass"}}', 400)),
        # Anthropic
        (
            400,
            {
                "type": "error",
                "error": {
                    "type": "invalid_request_error",
                    "message": "Your credit balance is too low to access the Anthropic API.",
                },
            },
        ),
        (403, {"type": "error", "error": {"type": "permission_error", "message": "may not"}}),
        # DeepSeek
        (402, error("Insufficient Balance")),
        (400, error("Insufficient Balance", "invalid_request_error")),
        # xAI
        (400, {"code": "invalid argument", "error": "Incorrect API key provided: ab***yz."}),
        (429, {"code": "limit", "error": "Your team has either used all available credits or"}),
        (403, {"code": "denied", "error": "Your newly created team doesn't have any credits"}),
        # OpenRouter
        (402, {"error": {"code": 402, "message": "This request requires more credits"}}),
        (403, {"error": {"code": 403, "message": "Key limit exceeded (total limit)."}}),
        # Pollinations, Cloudflare, Moonshot
        (402, {"success": False, "error": {"message": "Insufficient balance."}, "status": 402}),
        (
            429,
            {"errors": [{"code": 4006, "message": "you have used up your daily free allocation"}]},
        ),
        (429, {"error": {"type": "exceeded_current_quota_error", "message": "check your account"}}),
    ],
)
def test_a_key_without_right_or_credit_is_known_in_every_vendors_words(
    status: int, body: object
) -> None:
    found = told(status, body)
    assert isinstance(found, AttemptFailed)
    assert (found.code, found.status) == ("credentials", status)
    assert found.message == "does not accept the gateway's credentials or credit"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, error("Country, region, or territory not supported", "unsupported_country_region")),
        (400, [{"error": {"message": "User location is not supported for the API use."}}]),
    ],
)
def test_a_region_that_is_not_served_is_told_as_what_it_is(status: int, body: object) -> None:
    found = told(status, body)
    assert isinstance(found, AttemptFailed)
    assert found.code == "credentials"
    assert found.message == "does not serve the region that the gateway is in"


GOOGLES_MINUTE = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota, please check your plan.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}]},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"},
        ],
    }
}


@pytest.mark.parametrize(
    ("status", "body", "seconds"),
    [
        (429, GOOGLES_MINUTE, 34.4),
        (429, error("Rate limit reached for m. Please try again in 1.2s.", "rate_limit_ex"), 1.2),
        (
            429,
            error("Rate limit reached. Need more tokens? Upgrade at https://x/settings/billing"),
            None,
        ),
        (
            429,
            {
                "error": {
                    "code": 429,
                    "message": "Rate limit exceeded: free-models-per-day. Add 10 credits",
                    "metadata": {"headers": {"X-RateLimit-Reset": "1800003600000"}},
                }
            },
            3600.0,
        ),
        (429, {"object": "error", "message": "Requests rate limit exceeded", "code": "1300"}, None),
        (
            413,
            error(
                "Request too large for model `m` in organization `o` on tokens per minute (TPM):"
                " Limit 6000, Requested 14810, please reduce your message size and try again.",
                "rate_limit_exceeded",
            ),
            None,
        ),
        (403, {"message": "You have exceeded a secondary rate limit. Retry after 60 seconds"}, 60),
    ],
)
def test_a_rate_limit_is_known_and_tells_its_end(
    status: int, body: object, seconds: float | None
) -> None:
    found = told(status, body)
    assert isinstance(found, AttemptFailed)
    assert (found.code, found.retry_after) == ("rate_limited", seconds)


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry-After": "7"}, 7.0),
        (503, {"Retry-After": "Fri, 15 Jan 2027 08:00:10 GMT"}, 10.0),
        (500, {"retry-after": "3"}, 3.0),
        (408, {"Retry-After": "1"}, 1.0),
        (425, {"Retry-After": "1"}, 1.0),
        (429, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        (500, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, None),
        (429, {}, None),
    ],
)
def test_when_to_ask_again_is_kept_whatever_the_status(
    status: int, headers: dict[str, str], seconds: float | None
) -> None:
    found = told(status, b"", headers)
    assert isinstance(found, AttemptFailed)
    assert found.retry_after == seconds


@pytest.mark.parametrize(
    ("status", "body"),
    [
        # OpenAI
        (400, error("This model's maximum context length is 8192 tokens", "context_length_exce")),
        (400, error("Input tokens exceed the configured limit of 272000 tokens.")),
        (400, error("Invalid 'messages[1].content': string too long.", param="messages")),
        # Anthropic
        (400, error("prompt is too long: 210000 tokens > 200000 maximum")),
        (400, error("input length and `max_tokens` exceed context limit: 1 + 2 > 200000")),
        # Google
        (400, [error("The input token count (1054016) exceeds the maximum number of tokens")]),
        # xAI
        (400, {"code": "x", "error": "This model's maximum prompt length is 131072 but"}),
        # Mistral
        (400, {"message": "Prompt contains 40960 tokens, too large for model with 32768 maximum"
               " context length", "type": "invalid_request_message_order"}),
        # Groq
        (400, error("Please reduce the length of the messages or completion.")),
        (413, error("Please reduce the length of the messages or completion.")),
        # Together, vLLM, SGLang, TGI
        (422, error("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097.")),
        (400, {"object": "error", "message": "The decoder prompt (length 5000) is longer than the"
               " maximum model length of 4096."}),
        (422, {"error": "Input validation error: `inputs` must have less than 4096 tokens."}),
        # Cloudflare
        (413, {"errors": [{"message": "tokens exceeded this model context window limit (2048)"}]}),
        # OpenRouter, handing on what a provider behind it said
        (
            400,
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 400,
                    "metadata": {"raw": json.dumps(error("prompt is too long: 9 > 8 maximum"))},
                }
            },
        ),
        # llama.cpp, Moonshot, DashScope, Zhipu, oMLX, Bedrock
        (400, {"error": {"type": "exceed_context_size_error", "message": "the request exceeds"}}),
        (400, error("Invalid request: Your request exceeded model token limit: 8192")),
        (400, error("Range of input length should be [1, 30720]")),
        (400, error("Prompt exceeds max length", "1261")),
        (400, error("Prompt too long: 41911 tokens exceeds max context window of 32768 tokens")),
        (400, {"message": "Input is too long for requested model."}),
    ],
)  # fmt: skip
def test_a_prompt_that_is_too_long_is_known_in_every_vendors_words(
    status: int, body: object
) -> None:
    found = told(status, body)
    assert isinstance(found, Refusal)
    assert (found.code, found.status) == ("context_length_exceeded", None)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        # Azure
        (
            400,
            {
                "error": {
                    "message": "The response was filtered due to the prompt triggering Azure"
                    " OpenAI's content management policy.",
                    "param": "prompt",
                    "code": "content_filter",
                    "innererror": {"code": "ResponsibleAIPolicyViolation"},
                }
            },
        ),
        # OpenRouter
        (
            403,
            {
                "error": {
                    "code": 403,
                    "message": "m requires moderation on OpenRouter. Your input was flagged.",
                    "metadata": {"reasons": ["violence"], "flagged_input": "…"},
                }
            },
        ),
        (403, {"error": {"code": 403, "message": "no", "metadata": {"flagged_input": "x"}}}),
        # OpenAI
        (400, error("Your prompt was flagged as potentially violating our policy", "invalid_p")),
        # xAI, DeepSeek, DashScope, Anthropic
        (403, {"code": "denied", "error": "Content violates usage guidelines. Failed check:"}),
        (400, error("Content Exists Risk")),
        (400, error("Input data may contain inappropriate content.", "data_inspection_failed")),
        (400, error("Output blocked by content filtering policy")),
    ],
)
def test_what_a_filter_refuses_is_known_in_every_vendors_words(status: int, body: object) -> None:
    found = told(status, body)
    assert isinstance(found, Refusal)
    assert found.code == "content_filter"


@pytest.mark.parametrize(
    "said",
    [
        "invalid api key",
        "insufficient credits",
        "the model x does not exist",
        "Country not supported",
        'a" invalid api key "b',
        "a' invalid api key 'b",
        "it's the model x that does not exist",
    ],
)
@pytest.mark.parametrize(
    "repeats",
    [
        lambda said: error(f"Invalid value: '{said}'. Supported values are: 'system'."),
        lambda said: error(f"Invalid value: {said!r}."),
        lambda said: error(f"Invalid value: {said}", param="messages[0].role"),
        lambda said: error(f"Bad message: {json.dumps({'role': said})}"),
        lambda said: error(json.dumps({"role": said})),
        lambda said: error(f"Unknown word `{said}`, and no end: `{said}"),
        lambda said: {"detail": [{"loc": ["body", "role"], "input": said}]},
    ],
)
def test_a_caller_cannot_make_a_provider_say_what_rests_a_key_or_a_model(
    repeats: object, said: str
) -> None:
    assert callable(repeats)
    found = told(400, repeats(said))
    assert isinstance(found, Refusal)
    assert found.code == "provider_refused"


def test_a_refusal_keeps_the_providers_status_code_message_and_field() -> None:
    found = told(422, error("no such tone", "bad_tone", param="tone"))
    assert isinstance(found, Refusal)
    assert (found.status, found.provider_code) == (422, "bad_tone")
    assert (found.message, found.param) == ("no such tone", "tone")


@given(status=st.integers(300, 599), body=st.binary(max_size=200))
def test_any_answer_at_all_means_something(status: int, body: bytes) -> None:
    assert isinstance(from_status(status, {}, body, NOW), Refusal | AttemptFailed)


@pytest.mark.parametrize(
    ("error", "code", "ours"),
    [
        (Reset("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert"), "tls", True),
        (Reset("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca"), "tls", True),
        (Reset("[SSL: SSLV3_ALERT_BAD_CERTIFICATE] sslv3 alert"), "tls", True),
        (TlsFailed("a.test:443: sslv3 alert certificate unknown"), "tls", True),
        (TlsFailed("a.test:443: certificate has expired"), "tls", False),
        (Reset("[SSL: SSLV3_ALERT_BAD_RECORD_MAC] sslv3 alert"), "reset", False),
        (Reset("connection reset by peer"), "reset", False),
        (ConnectFailed("the proxy p:1 answered 403 alert unknown ca"), "connect", False),
    ],
)
def test_a_certificate_that_is_wanted_of_us_is_no_reset(
    error: TransportError, code: str, *, ours: bool
) -> None:
    found = from_transport(error)
    assert found.code == code
    assert ("of the gateway" in found.message) is ours


def test_what_we_lack_is_told_with_its_cure_and_rests_nobody() -> None:
    found = from_transport(OutOfSockets("the gateway is out of file descriptors: raise it"))
    assert found.code == "out_of_sockets"
    assert found.message == "was not asked: the gateway is out of file descriptors: raise it"


FIELDS = st.sampled_from(
    [
        "error", "errors", "message", "code", "detail", "details", "param", "type", "status",
        "metadata", "raw", "reason", "innererror",
    ]
)  # fmt: skip


@given(
    st.sampled_from([400, 403, 404, 413, 422, 429, 500]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
        max_leaves=8,
    ),
)
def test_any_json_at_all_means_something(status: int, body: object) -> None:
    assert isinstance(told(status, body), Refusal | AttemptFailed)
