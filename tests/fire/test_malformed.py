"""schemathesis finds what is not as the document says, and the garbage is garbage."""

from collections import Counter
from collections.abc import Iterator

import pytest

from bench.serving.checkpoint import publish
from bench.serving.load import Connection, connected
from bench.serving.processes import Running, served
from bench.soak.conformance import conformance, document_of
from bench.soak.garbage import Garbage
from bench.soak.malformed import DIM
from bench.soak.refusals import judge

ENOUGH = 25  # of each kind


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("registry")
    publish(folder, "moment", DIM)
    with served(folder) as running:
        yield running


def test_answers_are_as_the_document_says(running):
    asked, broken = conformance(running.url, 50)
    assert asked > 150
    assert not broken


def test_a_document_that_says_less_is_found_out(running):
    """The negative control: nobody is told that a model may be missing."""
    document = document_of(running.url)
    del document["paths"]["/models/{name}"]["get"]["responses"]["404"]
    _, broken = conformance(running.url, 5, document)
    assert any("/models/{name}" in told and "UndefinedStatusCode" in told for told in broken)


def test_every_kind_of_garbage_is_refused_for_its_own_reason(running):
    """Most of each kind must be refused, or the volume proves nothing."""
    garbage, fates = Garbage(0, DIM), Counter()
    with connected(running.port) as connection:
        for kind, make in garbage.kinds.items():
            for _ in range(ENOUGH):
                fates[kind, refused(connection, make)] += 1
    for kind in garbage.kinds:
        assert fates[kind, True] > ENOUGH / 4, (kind, fates)


def refused(connection: Connection, make) -> bool:
    answer = connection.exchange(make())
    assert judge(answer.status, answer.header("content-type"), bytes(answer.body)) == ""
    return answer.status >= 400


def test_garbage_repeats():
    first, again, other = (Garbage(seed, DIM) for seed in (1, 1, 2))
    made = [[one.next() for _ in range(50)] for one in (first, again, other)]
    assert made[0] == made[1] != made[2]
    assert {kind for kind, _ in made[0]} == set(first.kinds)
