"""What a profile adds up to."""

from bench.sampling import LOOP, counted, parts


def test_time_is_counted_where_it_is_spent_and_where_it_was_asked_for() -> None:
    own, whole, total = counted(["main;flow;parse 3", "main;flow 2", "main;flow;flow;parse 1"])
    assert own == {"parse": 4, "flow": 2}
    assert whole == {"main": 6, "flow": 6, "parse": 4}
    assert total == 6


def test_what_a_library_does_counts_for_who_called_it() -> None:
    begins = "main (typer/main.py:3);_serve (manyways/cli/serve.py:105);run (uvloop/__init__.py:38)"
    flow = "Flow.chat (manyways/flow.py:158)"
    send = "NativeTransport.send (/x/src/manyways/upstream/native/transport.py:9)"
    stacks = [
        f"{begins} 4",
        f"{begins};future_watcher (granian/_futures.py:13) 3",
        f"{begins};{flow} 2",
        f"{begins};{flow};decode (msgspec/json.py:1) 1",
        f"{flow};{send};feed_data (httptools/parser.py:1) 5",
        f"{flow};get (manyways/upstream/openai.py:2);{send};{flow};get (manyways/edge/http.py:1) 7",
        "Thread.run (threading.py:982) 1",
    ]
    assert parts(stacks) == {LOOP: 8, "flow.py": 3, "upstream/native": 5, "edge": 7}
