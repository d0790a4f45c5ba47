"""Negatives asked for ahead: order, depth, waiting, endings, errors, fallbacks, snapshots."""

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
import torch
from turnpoint_client import (
    Client,
    ConnectError,
    InvalidInputError,
    ItemPrefetcher,
    NonFiniteError,
    OverloadedError,
    Prefetcher,
    ProtocolError,
    Retries,
    StaleVersionError,
    TimedOutError,
    UnavailableError,
)

from tests.client.fake import Answer, Fake, Request, problem
from tests.client.loopback import App, asgi, serving, silent_port

U = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
SOON = Retries(limit=1, base=0.001)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("turnpoint-prefetch")]


def vanish(patience: float = 2.0) -> bool:
    """Whether no thread of a prefetcher is left."""
    until = time.monotonic() + patience
    while threads() and time.monotonic() < until:
        time.sleep(0.005)
    return not threads()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert vanish(), threads()


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def ports() -> list[int]:
    return []


@pytest.fixture
def client(fake: Fake, ports: list[int]) -> Iterator[Client]:
    with serving(asgi(fake, ports)) as url, Client(url, retries=SOON) as made:
        yield made


def numbered(count: int) -> Iterator[tuple[int, Any, Any]]:
    for k in range(count):
        yield k, U, U * k


class Held:
    """A service that answers the request of seed k once more than k are released; it counts."""

    def __init__(self, serve: Callable[[Request], Answer] | None = None) -> None:
        self._inner = asgi(serve or Fake(), [])
        self._changed = threading.Condition()
        self.released = self.now = self.most = self.arrived = 0

    @property
    def app(self) -> App:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            self.arrived += 1
            self.now += 1
            self.most = max(self.most, self.now)
            seed = int(parse_qs(scope["query_string"].decode())["seed"][0])
            await asyncio.to_thread(self._wait, seed)
            self.now -= 1
            await self._inner(scope, receive, send)

        return app

    def _wait(self, seed: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.released > seed, 10)

    def release(self, count: int = 1) -> None:
        with self._changed:
            self.released += count
            self._changed.notify_all()

    def until(self, arrived: int) -> None:
        end = time.monotonic() + 5
        while self.arrived < arrived:
            assert time.monotonic() < end
            time.sleep(0.002)


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_every_batch_comes_once_in_order_with_its_own(
    client: Client, depth: int, count: int
) -> None:
    with Prefetcher(client, numbered(count), depth=depth, n=2) as stream:
        for k, (payload, answer) in enumerate(stream):
            assert payload == k
            np.testing.assert_array_equal(answer.negatives[:, 0], U * k)
            np.testing.assert_array_equal(answer.negatives[:, 1], U * k + U)
            assert answer.transition.tolist() == [0, 1]
            assert answer.version == "v2"
        assert stream.stats.batches == count == client.stats.requests
        assert stream.stats.fallbacks == 0
        assert not threads(), "the end of the batches ends the threads"
        assert list(stream) == []
    assert client.ready(), "the client stays open"


def test_answers_keep_their_order_when_the_first_is_the_slowest() -> None:
    gate = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if b"seed=0" in scope["query_string"]:
            await asyncio.to_thread(gate.wait, 5)
        await asgi(Fake(), [])(scope, receive, send)
        if b"seed=2" in scope["query_string"]:
            gate.set()

    with (
        serving(app) as url,
        Client(url) as client,
        Prefetcher(client, numbered(4), depth=3, seed=0) as stream,
    ):
        found = [(k, answer.seed) for k, answer in stream]
    assert found == [(k, k) for k in range(4)]


@pytest.mark.parametrize("depth", [1, 3])
def test_depth_is_what_is_in_flight_and_how_far_batches_are_drawn(depth: int) -> None:
    held, drawn = Held(), 0

    def batches() -> Iterator[tuple[int, Any, Any]]:
        nonlocal drawn
        for batch in numbered(8):
            drawn += 1
            yield batch

    with (
        serving(held.app) as url,
        Client(url) as client,
        Prefetcher(client, batches(), depth=depth, seed=0) as stream,
    ):
        assert drawn == 0, "nothing is drawn before it is needed"
        held.release()
        for k, (payload, _) in enumerate(stream):
            assert payload == k
            ahead = min(8, k + 1 + depth)
            assert drawn == ahead
            held.until(ahead)
            assert held.now == ahead - (k + 1), "in flight while the loop works"
            held.release()
        assert held.most == depth


def test_a_loop_slower_than_the_service_never_waits(client: Client, ports: list[int]) -> None:
    with Prefetcher(client, numbered(6), depth=2) as stream:
        next(stream)
        first = stream.stats.waited
        for _ in range(5):
            time.sleep(0.1)
            next(stream)
        assert stream.stats.waited == first, "to the bit"
        assert stream.stats.late <= 1, "only the first"
    assert len(set(ports)) <= 2, "connections are kept"


def test_waiting_is_measured() -> None:
    def serve(request: Request) -> Answer:
        time.sleep(0.05)
        return Fake()(request)

    with serving(asgi(serve, [])) as url, Client(url) as client:
        begin = time.perf_counter()
        with Prefetcher(client, numbered(6), depth=1) as stream:
            assert len(list(stream)) == 6
        elapsed = time.perf_counter() - begin
    assert 0.8 * elapsed < stream.stats.waited < elapsed
    assert stream.stats.waited > 0.25
    assert stream.stats.late == 6


def test_an_early_break_leaves_nothing(client: Client) -> None:
    with Prefetcher(client, numbered(100)) as stream:
        for k, _ in stream:
            assert len(threads()) == 2
            if k == 3:
                break
    assert not threads()
    assert client.stats.requests <= 6
    assert next(stream, None) is None


def test_an_exception_in_the_loop_leaves_nothing(client: Client) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        Prefetcher(client, numbered(100)) as stream,
    ):
        for k, _ in stream:
            1 // (3 - k)
    assert not threads()


def test_one_that_is_dropped_unclosed_ends_its_threads(client: Client) -> None:
    stream = Prefetcher(client, numbered(100))
    next(stream)
    assert threads()
    del stream
    gc.collect()
    assert vanish()


def test_a_silent_service_does_not_hold_the_loop_back() -> None:
    held = Held()
    with serving(held.app) as url, Client(url, timeout=3.0) as client:
        begin = time.monotonic()
        with Prefetcher(client, numbered(9), depth=2, seed=0) as stream:
            held.release()
            next(stream)
            held.until(3)
        assert time.monotonic() - begin < 2.5
        assert len(threads()) == 2, "they wait on the network"
        held.release(9)
        assert vanish()


def test_waits_between_tries_end_at_once() -> None:
    def serve(_: Request) -> Answer:
        return problem(429, "overloaded", {"retry-after": "20"})

    with serving(asgi(serve, [])) as url, Client(url) as client:
        begin = time.monotonic()
        with Prefetcher(client, numbered(9), depth=2) as stream:
            stream._fill()
            while client.stats.retries < 2:
                time.sleep(0.005)
        assert time.monotonic() - begin < 5
        assert not threads()


def test_an_error_is_raised_at_its_batch_and_next_goes_on() -> None:
    def serve(request: Request) -> Answer:
        if request.query.get("seed") == ["3"]:
            return problem(422, "non_finite")
        return Fake()(request)

    def batches() -> Iterator[Any]:
        for k in range(6):
            yield (k, U, U[:1] if k == 1 else U)

    found: list[Any] = []
    with (
        serving(asgi(serve, [])) as url,
        Client(url) as client,
        Prefetcher(client, batches(), depth=3, seed=0) as stream,
    ):
        while True:
            try:
                found.append(next(stream)[0])
            except StopIteration:
                break
            except (InvalidInputError, NonFiniteError) as error:
                found.append(type(error).__name__)
    assert found == [0, "InvalidInputError", 2, "NonFiniteError", 4, 5]
    assert stream.stats.batches == 4


def test_an_error_of_the_batches_comes_after_those_before_it(client: Client) -> None:
    def batches() -> Iterator[Any]:
        yield from numbered(2)
        raise OSError("the file ended")

    seen = []
    with Prefetcher(client, batches(), depth=4) as stream:
        with pytest.raises(OSError, match="the file ended"):
            seen.extend(payload for payload, _ in stream)
        assert seen == [0, 1]
        assert stream.stats.batches == 2
        assert next(stream, None) is None


@pytest.mark.parametrize("batch", [(1, U), (1, U, U, {}, 5), 7])
def test_a_batch_of_another_kind_is_said(client: Client, batch: Any) -> None:
    with (
        Prefetcher(client, [batch]) as stream,
        pytest.raises(InvalidInputError, match="payload, users, positives"),
    ):
        next(stream)


@pytest.mark.parametrize(
    "bad", [{"depth": 0}, {"pause": -1}, {"max_version_age": 0}, {"depth": 1.5}]
)
def test_arguments_that_cannot_work(client: Client, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(bad))):
        Prefetcher(client, [], **bad)
    with pytest.raises(InvalidInputError, match="pinned"):
        Prefetcher(client, [], max_version_age=1, version="v2")
    assert not threads()


# --- options -------------------------------------------------------------------------------------


def test_seeds_count_on_and_a_batch_may_have_options_of_its_own(client: Client, fake: Fake) -> None:
    batches: list[Any] = [(k, U, U) for k in range(3)]
    batches.append((3, U, U, {"threshold": [0.5, 1], "seed": 9}))
    with Prefetcher(client, batches, depth=1, seed=4, transition="exact") as stream:
        assert [answer.seed for _, answer in stream] == [4, 5, 6, 9]
    assert [asked["transition"] for asked in fake.seen] == ["exact"] * 4
    assert fake.seen[3]["threshold"] == [0.5, 1]
    assert "threshold" not in fake.seen[0]


def test_returns_may_be_any_iterable(client: Client) -> None:
    returns = iter(("negatives", "scores"))
    with Prefetcher(client, numbered(3), returns=returns) as stream:
        assert all(answer.scores is not None for _, answer in stream)


# --- snapshots -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("returns", ["negatives", ("negatives", "transition")])
def test_what_changes_after_submission_does_not_change_the_request(kind: str, returns: Any) -> None:
    fake = Fake()
    held = Held(fake)
    if kind == "numpy":
        users, positives = U.copy(), U.copy()
    else:
        users = torch.nn.Parameter(torch.from_numpy(U.copy())).data
        positives = torch.from_numpy(U.copy())
    threshold = np.array([1, 2], np.float32)
    own = {} if returns == "negatives" else {"threshold": threshold}
    batches: Any = ((k, users, positives, own) for k in range(4))
    with (
        serving(held.app) as url,
        Client(url) as client,
        Prefetcher(client, batches, returns=returns, seed=0) as stream,
    ):
        held.release(9)
        for k, (_, answer) in enumerate(stream):
            # Batch k was drawn after k - 2 was answered: by then k - 2 updates were made.
            np.testing.assert_array_equal(np.asarray(answer.negatives[:, 0]), U + max(0, k - 2))
            users += 1
            positives += 1
            threshold += 1
    for k, asked in enumerate(sorted(fake.seen, key=lambda a: a["users"])):
        assert asked["users"] == (U + max(0, k - 2)).tolist()
        if own:
            assert asked["threshold"] == [1 + max(0, k - 2), 2 + max(0, k - 2)]


def test_a_request_under_way_is_a_copy() -> None:
    """A repeated request is the same one, although the arrays were changed in between."""
    bodies: list[bytes] = []

    def serve(request: Request) -> Answer:
        bodies.append(request.body)
        return Fake()(request) if len(bodies) > 1 else problem(503, "not_ready")

    users = U.copy()
    with (
        serving(asgi(serve, [])) as url,
        Client(url, retries=SOON) as client,
        Prefetcher(client, [(0, users, users)], depth=1, returns="negatives") as stream,
    ):
        stream._fill()
        users[:] = np.nan
        _, answer = next(stream)
    np.testing.assert_array_equal(answer.negatives[:, 0], U)
    assert bodies == [U.tobytes() * 2] * 2, "the repeated request as well"


def test_tensors_stay_tensors_and_need_no_detach(client: Client) -> None:
    users = torch.from_numpy(U).requires_grad_()
    with Prefetcher(client, [(None, users, users)] * 3) as stream:
        for _, answer in stream:
            assert isinstance(answer.negatives, torch.Tensor)
            assert not answer.negatives.requires_grad
            answer.negatives.zero_()


# --- when the service cannot ---------------------------------------------------------------------


def local(payload: int) -> Any:
    return np.full((2, 1, 3), payload, np.float32)


def test_training_goes_on_without_a_service() -> None:
    with (
        Client(f"http://127.0.0.1:{silent_port()}", retries=SOON) as client,
        Prefetcher(client, numbered(20), fallback=local, pause=60) as stream,
    ):
        for k, answer in stream:
            np.testing.assert_array_equal(answer.negatives, local(k))
            assert (answer.model, answer.version, answer.seed) == ("fallback", "fallback", -1)
            assert answer.transition is None
        assert stream.stats.fallbacks == stream.stats.batches == 20
        assert isinstance(stream.stats.trouble, ConnectError)
        assert client.stats.requests <= 4, "it was left alone after the first"


def test_without_a_fallback_it_is_raised() -> None:
    with (
        Client(f"http://127.0.0.1:{silent_port()}", retries=0) as client,
        Prefetcher(client, numbered(3)) as stream,
        pytest.raises(ConnectError),
    ):
        next(stream)


def test_it_is_asked_again_without_retries_until_it_answers() -> None:
    asked = 0

    def serve(request: Request) -> Answer:
        nonlocal asked
        asked += 1
        return problem(503, "not_ready") if asked <= 5 else Fake()(request)

    with (
        serving(asgi(serve, [])) as url,
        Client(url, retries=SOON) as client,
        Prefetcher(client, numbered(9), depth=1, fallback=local, pause=0) as stream,
    ):
        came = [answer.version for _, answer in stream]
    # Two tries for the first batch, one each for the next three, and then it answers.
    assert came == ["fallback"] * 4 + ["v2"] * 5
    assert (stream.stats.fallbacks, stream.stats.batches) == (4, 9)
    assert isinstance(stream.stats.trouble, UnavailableError)


def test_retry_after_lengthens_the_pause() -> None:
    asked = 0

    def serve(_: Request) -> Answer:
        nonlocal asked
        asked += 1
        return problem(429, "overloaded", {"retry-after": "30"})

    with (
        serving(asgi(serve, [])) as url,
        Client(url, retries=0) as client,
        Prefetcher(client, numbered(9), depth=1, fallback=local, pause=0) as stream,
    ):
        assert len(list(stream)) == 9
    assert asked == 1
    assert isinstance(stream.stats.trouble, OverloadedError)


def test_a_deadline_bounds_what_a_batch_may_take() -> None:
    held = Held()
    with (
        serving(held.app) as url,
        Client(url) as client,
        Prefetcher(client, numbered(3), fallback=local, deadline=0.1, seed=0) as stream,
    ):
        begin = time.monotonic()
        assert len(list(stream)) == 3
        assert time.monotonic() - begin < 1
        held.release(9)
    assert stream.stats.fallbacks == 3
    assert isinstance(stream.stats.trouble, TimedOutError)


def test_mistakes_are_raised_in_spite_of_a_fallback() -> None:
    def serve(_: Request) -> Answer:
        return problem(422, "non_finite")

    with (
        serving(asgi(serve, [])) as url,
        Client(url) as client,
        Prefetcher(client, numbered(3), fallback=local) as stream,
        pytest.raises(NonFiniteError),
    ):
        next(stream)
    assert stream.stats.fallbacks == 0


def test_a_fallback_of_another_shape_is_said() -> None:
    with (
        Client(f"http://127.0.0.1:{silent_port()}", retries=0) as client,
        Prefetcher(client, numbered(3), n=4, fallback=local) as stream,
        pytest.raises(InvalidInputError, match=r"\[2, 1, 3\], expected \[2, 4, 3\]"),
    ):
        next(stream)


# --- items ---------------------------------------------------------------------------------------


def test_items_are_asked_for_without_their_vectors(client: Client, fake: Fake) -> None:
    with ItemPrefetcher(client, numbered(4), n=2, seed=5) as stream:
        for k, (payload, answer) in enumerate(stream):
            assert payload == k
            assert answer.items.tolist() == [[0, 1], [3, 4]]
            assert (answer.version, answer.seed) == ("v2", 5 + k)
    assert [asked["returns"] for asked in fake.seen] == [["items"]] * 4
    with (
        ItemPrefetcher(client, numbered(1), returns="negatives") as stream,  # type: ignore[call-arg]
        pytest.raises(TypeError, match="'returns'"),
    ):
        next(stream)


def test_a_fallback_may_choose_the_items() -> None:
    def uniform(payload: int) -> Any:
        return np.full((2, 3), payload)

    with (
        Client(f"http://127.0.0.1:{silent_port()}", retries=0) as client,
        ItemPrefetcher(client, numbered(3), n=3, fallback=uniform, pause=60) as stream,
    ):
        for k, answer in stream:
            np.testing.assert_array_equal(answer.items, uniform(k))
            assert (answer.model, answer.version, answer.seed) == ("fallback", "fallback", -1)
    assert stream.stats.fallbacks == 3
    with (
        Client(f"http://127.0.0.1:{silent_port()}", retries=0) as client,
        ItemPrefetcher(client, numbered(3), fallback=lambda k: local(k)[:, :, 0]) as stream,
        pytest.raises(InvalidInputError, match="the fallback made float32; items are integers"),
    ):
        next(stream)
    with (
        Client(f"http://127.0.0.1:{silent_port()}", retries=0) as client,
        ItemPrefetcher(client, numbered(3), n=4, fallback=uniform) as stream,
        pytest.raises(InvalidInputError, match=r"\[2, 3\], expected \[2, 4\]"),
    ):
        next(stream)


# --- old versions --------------------------------------------------------------------------------


class Published:
    """A service whose live version can be replaced; `asked` counts GET /models/{name}."""

    def __init__(self, age: float | None) -> None:
        self.live, self.answers, self.age, self.asked = "v2", "v2", age, 0

    def __call__(self, request: Request) -> Answer:
        if request.path == "/models/demo":
            self.asked += 1
            told = {**Fake.MODEL, "live": self.live, "age_seconds": self.age}
            return Answer(200, {"content-type": "application/json"}, json.dumps(told).encode())
        request.query["version"] = [self.answers]
        return Fake()(request)

    @property
    def app(self) -> App:
        return asgi(self, [])


def test_a_version_within_its_age_is_asked_about_once() -> None:
    service = Published(age=5)
    with (
        serving(service.app) as url,
        Client(url) as client,
        Prefetcher(client, numbered(5), depth=1, max_version_age=60) as stream,
    ):
        assert [answer.version for _, answer in stream] == ["v2"] * 5
    assert service.asked == 1


def test_an_old_version_is_an_error_and_a_new_one_mends_it() -> None:
    service = Published(age=61)
    with serving(service.app) as url, Client(url) as client:
        options: dict[str, Any] = {"depth": 1, "max_version_age": 60, "pause": 0}
        with (
            Prefetcher(client, numbered(9), **options) as stream,
            pytest.raises(StaleVersionError, match=r"demo v2 was made 61 s ago.*is 60;"),
        ):
            next(stream)
        with Prefetcher(client, numbered(9), fallback=local, **options) as stream:
            assert next(stream)[1].version == "fallback"
            service.live = service.answers = "v3"
            service.age = 1
            assert [answer.version for _, answer in stream][-7:] == ["v3"] * 7
            assert isinstance(stream.stats.trouble, StaleVersionError)
            assert stream.stats.fallbacks <= 2


def test_age_grows_while_nothing_is_published() -> None:
    service = Published(age=59.8)
    with (
        serving(service.app) as url,
        Client(url) as client,
        Prefetcher(client, numbered(9), depth=1, max_version_age=60) as stream,
    ):
        assert next(stream)[1].version == "v2"
        time.sleep(0.25)
        next(stream)  # was asked for before
        with pytest.raises(StaleVersionError):
            next(stream)
    assert service.asked == 1


def test_a_version_replaced_while_it_answered_is_fresh() -> None:
    service = Published(age=0)
    service.live = "v3"
    with (
        serving(service.app) as url,
        Client(url) as client,
        Prefetcher(client, numbered(3), max_version_age=60) as stream,
    ):
        assert [answer.version for _, answer in stream] == ["v2"] * 3


def test_a_service_that_tells_no_age_is_said() -> None:
    with (
        serving(Published(age=None).app) as url,
        Client(url) as client,
        Prefetcher(client, numbered(3), max_version_age=60) as stream,
        pytest.raises(ProtocolError, match="leave max_version_age out"),
    ):
        next(stream)
