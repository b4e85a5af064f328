import pytest

from manyways.catalog.categories import of_id

WELL_KNOWN = {
    "text": """
        gpt-4o gpt-4.1-mini o3 claude-3-opus claude-sonnet-4 gemini-2.5-flash
        command-r-plus-08-2024 deepseek-r1 meta-llama/llama-guard-4-12b
        Qwen/Qwen2.5-VL-7B mixtral-8x22b codestral-latest voxtral-small-2507 influx-7b
        tesora grok-4 amazon/nova-lite gpt-oss-120b pixtral-large-latest
        SmolLM2-135M-Instruct phi-4 kimi-k2 glm-4.6 llava:13b tessa-e5x gemma-3n-e4b-it""",
    "image": """
        dall-e-3 dalle-mini flux black-forest-labs/FLUX.1-schnell stable-diffusion
        sdxl-turbo stabilityai/stable-diffusion-3.5-large gpt-image-1
        imagen-4.0-generate-001 imagen3 midjourney qwen-image grok-2-image-1212
        gemini-2.5-flash-image-preview sd3.5-large sd-3.5 chatgpt-image-latest""",
    "audio": """
        tts-1 tts-1-hd gpt-4o-mini-tts xtts-v2 playai-tts whisper whisper-large-v3
        distil-whisper-large-v3-en gpt-4o-transcribe alloy echo fable nova
        gpt-4o-audio-preview gpt-realtime hexgrad/Kokoro-82M
        canopylabs/orpheus-v1-english eleven_multilingual_v2""",
    "video": """
        sora sora-2-pro veo-3.0-generate-preview veo3 cogvideo THUDM/CogVideoX-5b runway
        Wan-AI/Wan2.2-T2V-A14B kling-v2 stable-video-diffusion hunyuanvideo wan-2.5""",
    "embedding": """
        text-embedding-3-large text-embedding-ada-002 mistral-embed
        nomic-embed-text:latest BAAI/bge-m3 Qwen/Qwen3-Embedding-8B intfloat/e5-large-v2
        voyage-3 mxbai-embed-large multilingual-e5-small all-minilm:l6-v2""",
}


@pytest.mark.parametrize(
    ("model_id", "category"),
    [(name, category) for category, names in WELL_KNOWN.items() for name in names.split()],
)
def test_well_known_ids_tell_their_category(model_id: str, category: str) -> None:
    assert of_id(model_id) == category


def test_a_reranker_fits_no_category_of_ours() -> None:
    assert of_id("BAAI/bge-reranker-v2-m3") is None
