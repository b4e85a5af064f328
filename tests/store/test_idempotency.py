"""Rows of answers that repeated requests get: who may answer, and what is kept."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from manyways.store import idempotency
from manyways.store.database import Database
from manyways.store.idempotency import LIFE, Answer, Found, Request

NOON = 1_800_000_000.0
LEASE = 20.0


def request(
    number: int = 1, *, key: str = "k", body: bytes = b"a", owner: str = "key:1"
) -> Request:
    return Request(owner=owner, key=key, fingerprint=body * 32, id=f"request-{number}")


def answer(number: int = 1, body: bytes | None = b'{"id": 1}') -> Answer:
    headers = (("content-type", "application/json"), ("x-manyways-model", "Mod\xe8le"))
    return Answer(request_id=f"request-{number}", status=200, headers=headers, body=body)


def claim(database: Database, asked: Request, now: float = NOON) -> Found:
    return database.run(
        lambda connection: idempotency.claim(connection, asked, now, LEASE), write=True
    )


def keep(database: Database, asked: Request, given: Answer, now: float = NOON) -> bool:
    body = idempotency.packed(given)
    return database.run(
        lambda connection: idempotency.keep(connection, asked, given, body, now), write=True
    )


def free(database: Database, asked: Request) -> None:
    database.run(lambda connection: idempotency.free(connection, asked), write=True)


def expire(database: Database, now: float, limit: int = 100) -> int:
    return database.run(lambda connection: idempotency.expire(connection, now, limit), write=True)


def test_the_first_one_answers_and_the_others_wait(database: Database) -> None:
    assert claim(database, request(1)) == "claimed"
    assert claim(database, request(2)) == "running"


def test_of_many_that_claim_at_the_same_moment_one_answers(database: Database) -> None:
    for key in ("first", "second", "third"):
        with ThreadPoolExecutor(8) as nodes:
            found = list(
                nodes.map(
                    lambda number, key=key: claim(database, request(number, key=key)), range(24)
                )
            )
        assert found.count("claimed") == 1
        assert found.count("running") == 23


def test_an_answer_comes_back_byte_for_byte(database: Database) -> None:
    given = answer(1, bytes(range(256)) * 100)
    claim(database, request(1))

    assert keep(database, request(1), given)
    assert claim(database, request(2)) == given


def test_an_answer_that_is_too_long_leaves_word_that_there_was_one(database: Database) -> None:
    claim(database, request(1))
    keep(database, request(1), answer(1, None))

    assert claim(database, request(2)) == answer(1, None)


@pytest.mark.parametrize("answered", [False, True])
def test_a_key_that_comes_with_another_request_is_told_apart(
    database: Database, answered: bool
) -> None:
    claim(database, request(1))
    if answered:
        keep(database, request(1), answer(1))

    assert claim(database, request(2, body=b"b")) == "conflict"


def test_a_key_belongs_to_its_caller(database: Database) -> None:
    claim(database, request(1))

    assert claim(database, request(2, owner="key:2", body=b"b")) == "claimed"
    assert claim(database, request(3, key="K", body=b"b")) == "claimed"


def test_a_claim_that_is_given_up_can_be_had(database: Database) -> None:
    claim(database, request(1))
    free(database, request(1))

    assert claim(database, request(2, body=b"b")) == "claimed"


def test_nobody_gives_up_what_another_holds_or_has_answered(database: Database) -> None:
    claim(database, request(1))
    free(database, request(2))
    assert claim(database, request(3)) == "running"

    keep(database, request(1), answer(1))
    free(database, request(1))
    assert claim(database, request(3)) == answer(1)


def test_a_lapsed_claim_is_taken_over_and_its_holder_keeps_nothing(database: Database) -> None:
    claim(database, request(1))
    assert claim(database, request(2), NOON + LEASE - 0.1) == "running"

    assert claim(database, request(2), NOON + LEASE) == "claimed"
    assert not keep(database, request(1), answer(1))
    free(database, request(1))
    assert keep(database, request(2), answer(2))
    assert claim(database, request(3)) == answer(2)


def test_a_renewed_claim_holds_on(database: Database) -> None:
    claim(database, request(1))
    claim(database, request(2, key="other"))
    held = (request(1), request(2, key="other"), request(3, key="gone"))
    database.run(lambda connection: idempotency.renew(connection, held, NOON + 40.0), write=True)

    assert claim(database, request(4), NOON + 39.0) == "running"
    assert claim(database, request(4, key="other"), NOON + 39.0) == "running"
    assert claim(database, request(4, key="gone"), NOON + 39.0) == "claimed"


def test_an_answer_is_not_renewed_into_a_claim(database: Database) -> None:
    claim(database, request(1))
    keep(database, request(1), answer(1))
    database.run(lambda connection: idempotency.renew(connection, (request(1),), NOON), write=True)

    assert claim(database, request(2)) == answer(1)


def test_an_answer_is_kept_for_a_day_after_it_was_given(database: Database) -> None:
    claim(database, request(1))
    keep(database, request(1), answer(1), NOON + 100)

    assert claim(database, request(2), NOON + LIFE + 99) == answer(1)
    assert claim(database, request(2, body=b"b"), NOON + LIFE + 100) == "claimed"


def test_what_has_expired_is_deleted_batch_by_batch(database: Database) -> None:
    for number in range(5):
        claim(database, request(number, key=f"{number}"), NOON + number)
        keep(database, request(number, key=f"{number}"), answer(number), NOON + number)

    assert expire(database, NOON + LIFE - 1) == 0
    assert expire(database, NOON + LIFE + 3, limit=3) == 3
    assert expire(database, NOON + LIFE + 3, limit=3) == 1
    assert claim(database, request(9, key="4"), NOON + 5) == answer(4)
