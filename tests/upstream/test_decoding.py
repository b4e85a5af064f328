"""Compressed bodies are decoded as they come, in bounded memory, and end honestly or not at all."""

import gzip
import random
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.errors import Garbled
from manyways.upstream.decoding import Decoder, decoder_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE = 256 * 1024
TEXT = b"".join(b'data: {"index": %d, "delta": "some words"}\n\n' % n for n in range(40))


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def zstd_with_checksum(data: bytes) -> bytes:
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


PACKINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": (" zstd ", zstd.compress),
    "zstd with a checksum": ("zstd", zstd_with_checksum),
}
every_packing = pytest.mark.parametrize(
    ("coding", "pack"), [pytest.param(*packing, id=name) for name, packing in PACKINGS.items()]
)


def made(coding: str) -> Decoder:
    decoder = decoder_of(coding)
    assert decoder is not None
    return decoder


def taken(decoder: Decoder) -> bytes:
    """All that can be had by now."""
    found = b""
    while piece := decoder.take():
        assert len(piece) <= PIECE
        found += piece
    return found


def decoded(coding: str, parts: Sequence[bytes]) -> bytes:
    decoder = made(coding)
    found = b""
    for part in parts:
        decoder.feed(part)
        found += taken(decoder)
    decoder.close()
    return found


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(places)]


@every_packing
@given(data=st.binary(max_size=3000), repeated=st.integers(1, 50), cuts=st.lists(st.integers(0)))
def test_however_the_bytes_are_split_the_same_comes_out(
    coding: str,
    pack: Callable[[bytes], bytes],
    data: bytes,
    repeated: int,
    cuts: list[int],
) -> None:
    data *= repeated
    assert decoded(coding, split(pack(data), cuts)) == data


@every_packing
def test_byte_by_byte(coding: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(TEXT)
    assert decoded(coding, [packed[n : n + 1] for n in range(len(packed))]) == TEXT


@every_packing
def test_what_is_fed_before_everything_was_taken_waits(
    coding: str, pack: Callable[[bytes], bytes]
) -> None:
    data = bytes(3 * PIECE)
    packed = pack(data)
    decoder = made(coding)
    found = b""
    for n in range(len(packed)):
        decoder.feed(packed[n : n + 1])
        if not n % 7:
            found += decoder.take()
    found += taken(decoder)
    decoder.close()
    assert found == data


@every_packing
def test_cut_at_any_byte_is_no_clean_end(coding: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(TEXT)
    for cut in range(1, len(packed)):
        decoder = made(coding)
        decoder.feed(packed[:cut])
        assert TEXT.startswith(taken(decoder))
        for _ in range(2):
            with pytest.raises(Garbled, match="ends too early"):
                decoder.close()
        assert decoder.take() == b""


@every_packing
def test_no_bytes_at_all_are_an_empty_body(coding: str, pack: Callable[[bytes], bytes]) -> None:
    decoder = made(coding)
    decoder.feed(b"")
    assert decoder.take() == b""
    decoder.close()
    assert decoded(coding, [pack(b"")]) == b""


@every_packing
def test_a_bomb_costs_no_memory(coding: str, pack: Callable[[bytes], bytes]) -> None:
    size = 16 * 2**20
    packed = pack(bytes(size))
    decoder = made(coding)
    tracemalloc.start()
    try:
        decoder.feed(packed)
        found = 0
        while piece := decoder.take():
            assert len(piece) <= PIECE
            found += len(piece)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    decoder.close()
    assert found == size
    assert most < 4 * PIECE + 2 * len(packed)


@every_packing
@given(place=st.integers(0), flip=st.integers(1, 255), cuts=st.lists(st.integers(0), max_size=3))
def test_broken_data_is_garbled_or_decoded_and_nothing_else(
    coding: str, pack: Callable[[bytes], bytes], place: int, flip: int, cuts: list[int]
) -> None:
    packed = bytearray(pack(TEXT))
    packed[place % len(packed)] ^= flip
    try:
        decoded(coding, split(bytes(packed), cuts))
    except Garbled as error:
        assert str(error).startswith("the answer's ")  # noqa: PT017  it need not be raised


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "zstd", "br", "deflate"])
def test_what_is_not_compressed_is_garbled(coding: str) -> None:
    decoder = made(coding)
    decoder.feed(b'{"error": "no gzip at all, whatever the header says"}')
    with pytest.raises(Garbled, match=f"the answer's {coding} data is broken") as told:
        taken(decoder)
    decoder.feed(b"more")
    assert decoder.take() == b""
    with pytest.raises(Garbled) as again:
        decoder.close()
    assert str(again.value) == str(told.value)
    assert repr(decoder) == f"<Decoder {coding} {told.value}>"


def flushed_gzip(parts: Sequence[bytes]) -> list[bytes]:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    return [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts]


def flushed_brotli(parts: Sequence[bytes]) -> list[bytes]:
    packer = brotli.Compressor()
    return [packer.process(part) + packer.flush() for part in parts]


def flushed_zstd(parts: Sequence[bytes]) -> list[bytes]:
    packer = zstd.ZstdCompressor()
    return [packer.compress(part, zstd.ZstdCompressor.FLUSH_BLOCK) for part in parts]


@pytest.mark.parametrize(
    ("coding", "flushed"),
    [("gzip", flushed_gzip), ("br", flushed_brotli), ("zstd", flushed_zstd)],
)
def test_what_a_server_flushed_comes_out_at_once(
    coding: str, flushed: Callable[[Sequence[bytes]], list[bytes]]
) -> None:
    noise = random.Random(7)
    events = [b"data: 1\n\n", b"", TEXT, noise.randbytes(5000), b"x"]
    decoder = made(coding)
    for event, packed in zip(events, flushed(events), strict=True):
        decoder.feed(packed)
        assert taken(decoder) == event
    with pytest.raises(Garbled, match="too early"):
        decoder.close()


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("zstd", zstd.compress)], ids=["gzip", "zstd"]
)
def test_several_members_are_one_body(coding: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(b"one, ") + pack(b"") + pack(b"two")
    for cut in range(len(packed)):
        assert decoded(coding, [packed[:cut], packed[cut:]]) == b"one, two"


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("zstd", zstd.compress)], ids=["gzip", "zstd"]
)
def test_members_that_hold_nothing_have_an_end(coding: str, pack: Callable[[bytes], bytes]) -> None:
    assert decoded(coding, [(pack(b"") * 90 + pack(b"one")) * 3]) == b"one" * 3
    with pytest.raises(Garbled, match="on and on"):
        decoded(coding, [pack(b"") * 200])


@pytest.mark.parametrize("behind", [b"\0" * 600, b"garbage, then \x1f\x8b"])
@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)],
    ids=["gzip", "deflate", "raw deflate"],
)
def test_what_follows_is_ignored_as_in_browsers(
    coding: str, pack: Callable[[bytes], bytes], behind: bytes
) -> None:
    packed = pack(TEXT) + behind
    for cut in range(len(packed) + 1):
        assert decoded(coding, [packed[:cut], packed[cut:]]) == TEXT


@pytest.mark.parametrize(
    ("coding", "pack"), [("br", brotli.compress), ("zstd", zstd.compress)], ids=["br", "zstd"]
)
def test_what_follows_is_refused_where_browsers_or_curl_refuse_it(
    coding: str, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack(TEXT) + b"garbage"
    for cut in range(len(packed) + 1):
        with pytest.raises(Garbled):
            decoded(coding, [packed[:cut], packed[cut:]])


def test_a_window_that_would_cost_much_memory_is_refused() -> None:
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 24})
    packed = packer.compress(b"small") + packer.flush()
    with pytest.raises(Garbled):
        decoded("zstd", [packed])


@pytest.mark.parametrize(
    "coding", ["", "identity", "compress", "gzip, br", "aes128gcm", "gzip;q=1"]
)
def test_what_is_not_known_is_passed_as_it_is(coding: str) -> None:
    assert decoder_of(coding) is None


def test_its_repr_tells_how_far_it_is() -> None:
    decoder = made("gzip")
    assert repr(decoder) == "<Decoder gzip complete>"
    packed = gzip.compress(b"1")
    decoder.feed(packed[:-1])
    assert taken(decoder) == b"1"
    assert repr(decoder) == "<Decoder gzip open>"
    decoder.feed(packed[-1:])
    assert taken(decoder) == b""
    assert repr(decoder) == "<Decoder gzip complete>"
