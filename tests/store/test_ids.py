import os
import subprocess
import sys
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.store.ids import new_id


def test_an_id_is_a_version_7_uuid_of_the_rfc_variant() -> None:
    made = new_id()
    parsed = uuid.UUID(made)
    assert str(parsed) == made
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122


def test_ids_of_one_process_grow_and_never_repeat() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(set(made))


@given(st.integers(min_value=0, max_value=(1 << 48) - 1))
def test_the_moment_can_be_read_back_to_the_millisecond(milliseconds: int) -> None:
    made = uuid.UUID(new_id(milliseconds * 1_000_000 + 999_999))
    assert made.int >> 80 == milliseconds
    assert made.version == 7
    assert made.variant == uuid.RFC_4122


def test_an_id_of_a_far_moment_does_not_disturb_the_ids_of_now() -> None:
    before = new_id()
    far = new_id(4_000_000_000 * 10**9)
    after = new_id()
    assert before < after < far


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_child_does_not_repeat_its_parents_ids() -> None:
    # In a process of its own: forking the test runner, threads and all, would be asking for it.
    program = """
import os
from manyways.store import ids
from manyways.store.ids import new_id
ids._moment = 1 << 47  # a millisecond that parent and child share, as its end is far away
reader, writer = os.pipe()
new_id()
if os.fork() == 0:
    os.write(writer, " ".join(new_id() for _ in range(500)).encode())
    os._exit(0)
mine = {new_id() for _ in range(500)}
os.wait()
print(len(mine | set(os.read(reader, 1 << 16).decode().split())))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"1000\n"
