"""Negatives, or the items that they are, asked for before the training loop needs them."""

from collections.abc import Callable, Iterable
from typing import Unpack

from ._ahead import FALLBACK, Ahead, Batch, P
from ._arrays import A
from ._client import Client
from ._options import Options
from ._wire import Call
from .errors import InvalidInputError
from .results import Items, Negatives


class Prefetcher(Ahead[P, A, Negatives[A]]):
    """Iterates over batches and their negatives, `depth` requests ahead of the loop.

        def batches():
            for u, i in loader:  # runs in the loop's thread, `depth` steps ahead of its use
                yield (u, i), users[u].detach(), items[i].detach()

        with Prefetcher(client, batches(), depth=2, returns="negatives") as stream:
            for (u, i), answer in stream:
                ...  # one step of training with answer.negatives, [B, n, d]

    While the loop works on batch k, the negatives of k + 1 … k + depth are being made: a service
    faster than the loop is waited for at the first batch only. `stats` says whether it was so.

    The price: the negatives of batch k follow from embeddings as they were `depth` optimiser steps
    before it (fewer in the first `depth` batches), so depth = 1 if that is enough.

    What is copied, and when: batch k + depth is drawn from `batches` once the answer to k is there
    and before the loop gets it, in the loop's own thread. There and then its arrays are copied into
    the request, so that an optimiser may change them in place as soon as `next` has returned. From
    another device they are first copied to the host, which waits for that device. The payload is
    handed back as it is; it is not copied.

    An error is raised at the batch that it belongs to, after all batches before it; `next` then
    goes on with the batch after it. Leaving the `with` block, in whatever way, drops what is still
    on its way and ends the threads, as the end of `batches` does. It takes a second at most: a
    thread that a silent service keeps waiting ends later, with the client's `timeout`. One thread
    at a time may iterate. The client stays open.

    Args:
        client: whose connections, retries and stats are used; other threads may use it as well.
        batches: gives `(payload, users, positives)`, or with a fourth entry the `Options` of that
            batch alone, such as `{"threshold": scores}`. Drawn from no earlier than needed.
        depth: requests in flight, each with a thread of its own; at least 1.
        n: negatives per row.
        returns: as in `Client.negatives`. "negatives" alone takes the fastest format.
        fallback: makes negatives [B, n, d] from the payload when the service cannot: it is called
            at the batch's turn, in the loop's thread, and may read parameters as they then are.
            It stands in for `UnavailableError`, `TransportError` and `StaleVersionError`; any other
            error is a mistake and is raised. Its answers have `version` "fallback", seed -1, and
            nothing but negatives. Give a `deadline` with it, the longest that a batch may take.
        pause: seconds for which the service is left alone after a fallback, longer if its
            `Retry-After` says so; in between the fallback is used without asking. Afterwards it is
            asked without retries until it answers, so that a service that is down costs nothing.
        max_version_age: seconds that may have passed since the answering version was made; an older
            one is an error, `StaleVersionError`: a trainer that stopped publishing goes unnoticed
            otherwise. Asks `GET /models/{name}` once per version; clocks need not agree.
        **options: see `Options`; the same for every batch, except that batch k = 0, 1, … is asked
            with `seed` + k, so that a run can be repeated and no two batches share their noise.

    Attributes:
        stats: what prefetching came to so far.

    Raises:
        InvalidInputError: depth < 1, pause < 0, max_version_age <= 0 or beside a pinned version.
    """

    def __init__(
        self,
        client: Client,
        batches: Iterable[Batch[P, A]],
        *,
        depth: int = 2,
        n: int = 1,
        returns: str | Iterable[str] | None = None,
        fallback: Callable[[P], A] | None = None,
        pause: float = 1.0,
        max_version_age: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        self._returns = returns if returns is None or isinstance(returns, str) else list(returns)
        super().__init__(
            client,
            batches,
            depth=depth,
            n=n,
            fallback=fallback,
            pause=pause,
            max_version_age=max_version_age,
            **options,
        )

    def _request(self, users: A, positives: A, options: Options) -> Call[Negatives[A]]:
        wire = self._client._wire
        return wire.negatives(users, positives, n=self._n, returns=self._returns, **options)

    def _shape(self, users: A) -> tuple[int, ...]:
        return (users.shape[0], self._n, users.shape[1])

    def _dressed(self, made: A) -> Negatives[A]:
        return Negatives(model=FALLBACK, version=FALLBACK, seed=-1, negatives=made)


class ItemPrefetcher(Ahead[P, A, Items[A]]):
    """`Prefetcher` for a model with a catalogue: asks `Client.items`, for items without vectors.

        with ItemPrefetcher(client, batches(), n=4) as stream:
            for (u, i), answer in stream:
                ...  # one step of training with items[answer.items], [B, n, d], and its gradient

    Args:
        fallback: makes items, integers [B, n], from the payload when the service cannot.
        client, batches, depth, n, pause, max_version_age, **options: as of `Prefetcher`.

    Attributes:
        stats: what prefetching came to so far.

    Raises:
        InvalidInputError: as `Prefetcher`.
    """

    def _request(self, users: A, positives: A, options: Options) -> Call[Items[A]]:
        return self._client._wire.items(users, positives, n=self._n, **options)

    def _shape(self, users: A) -> tuple[int, ...]:
        return (users.shape[0], self._n)

    def _dressed(self, made: A) -> Items[A]:
        if "int" not in str(made.dtype):
            raise InvalidInputError(f"the fallback made {made.dtype}; items are integers")
        return Items(model=FALLBACK, version=FALLBACK, seed=-1, items=made)
