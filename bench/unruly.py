"""The upstream on its bad days: of its answers, a few go wrong in every way that answers can.
`GET /faults` tells how many of each kind there were.

Run as `python -m bench.unruly --port P --faults 0.05 --seed 1`.
"""

import argparse
import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

import uvloop

from bench.upstream import Connection, Metronome, as_json, at_once, serve

PIECES: Final = 8
"""Of a slow answer."""
PAUSE: Final = 0.1
"""Between two of them, in seconds."""
_REFUSAL: Final = json.dumps({"error": {"message": "Not now.", "type": "server_error"}}).encode()


class Unruly(Connection):
    """A connection over which a share of the answers fails."""

    def __init__(
        self,
        metronome: Metronome,
        *,
        faults: float,
        chance: random.Random,
        counts: Counter[str],
    ) -> None:
        super().__init__(metronome)
        self._faults = faults
        self._chance = chance
        self._counts = counts

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"post") and self._chance.random() < self._faults:
            fault = self._chance.choice(FAULTS)
            self._counts[fault.__name__] += 1
            fault(self, body)
        else:
            super()._answer(head, body)

    def _looked_up(self, head: bytes) -> bytes:
        return (
            as_json(self._counts) if head.startswith(b"get /faults") else super()._looked_up(head)
        )

    def reset(self, _body: bytes) -> None:
        """Gone before a word was said."""
        self.transport.abort()

    def silence(self, _body: bytes) -> None:
        """Nothing, for as long as anybody waits."""
        self._streaming = True

    def stall(self, body: bytes) -> None:
        """Half an answer, then nothing."""
        self._streaming = True
        self._half(body)

    def cut(self, body: bytes) -> None:
        """Half an answer, then the end of the connection."""
        self._half(body)
        self.transport.close()

    def tear(self, body: bytes) -> None:
        """The same, but reset."""
        self._half(body)
        self.transport.abort()

    def garble(self, body: bytes) -> None:
        """Half an answer, then what is no HTTP."""
        self._half(body)
        self.transport.write(b"\r\nzz\r\n\x00HTTP?")
        self.transport.close()

    def nonsense(self, _body: bytes) -> None:
        """No HTTP at all."""
        self.transport.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        self.transport.close()

    def refuse(self, _body: bytes) -> None:
        """An error, as providers have them."""
        head = b"HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(head % len(_REFUSAL) + _REFUSAL)

    def dribble(self, body: bytes) -> None:
        """All of it, slowly."""
        self._streaming = True
        answer = at_once(body)
        size = len(answer) // PIECES + 1
        self._dribble([answer[start : start + size] for start in range(0, len(answer), size)])

    def leave(self, body: bytes) -> None:
        """All of it, and the end of the connection, though it said nothing of that."""
        self.transport.write(at_once(body))
        self.transport.close()

    def linger(self, body: bytes) -> None:
        """The same a moment later, when the next request may be on its way."""
        self.transport.write(at_once(body))
        pause = self._chance.random() * 2 * PAUSE
        asyncio.get_running_loop().call_later(pause, self.transport.abort)

    def _half(self, body: bytes) -> None:
        answer = at_once(body)
        self.transport.write(answer[: self._chance.randrange(1, len(answer))])

    def _dribble(self, pieces: list[bytes]) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(pieces.pop(0))
        if pieces:
            asyncio.get_running_loop().call_later(PAUSE, self._dribble, pieces)
        else:
            self.resume()


FAULTS: Final[tuple[Callable[[Unruly, bytes], None], ...]] = (
    Unruly.reset,
    Unruly.silence,
    Unruly.stall,
    Unruly.cut,
    Unruly.tear,
    Unruly.garble,
    Unruly.nonsense,
    Unruly.refuse,
    Unruly.dribble,
    Unruly.leave,
    Unruly.linger,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--faults", type=float, required=True, help="the share of answers")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    made = partial(Unruly, faults=options.faults, chance=chance, counts=Counter())
    uvloop.run(serve(options.port, connection=made))


if __name__ == "__main__":
    main()
