"""The last used stay, and the bound in bytes is a bound of memory."""

import threading
import tracemalloc

from service.cache.local import ENTRY_BYTES, LocalStore

SIZE = 100


def key(index: int) -> bytes:
    return index.to_bytes(16, "big")


def record(index: int, size: int = SIZE) -> bytes:
    return index.to_bytes(4, "big") * (size // 4)


def filled(count: int, room: int) -> LocalStore:
    store = LocalStore(room * (SIZE + ENTRY_BYTES))
    store.put([key(i) for i in range(count)], [record(i) for i in range(count)])
    return store


def test_gives_back_what_was_put_and_none_for_the_rest() -> None:
    store = filled(3, room=10)
    wanted = [key(2), key(7), key(0), key(2)]
    assert store.get(wanted, SIZE) == [record(2), None, record(0), record(2)]


def test_forgets_what_was_used_longest_ago() -> None:
    store = filled(10, room=10)
    store.get([key(0), key(5)], SIZE)
    store.put([key(10), key(11), key(12)], [record(10), record(11), record(12)])
    left = {i for i, found in enumerate(store.get([key(i) for i in range(13)], SIZE)) if found}
    assert left == {0, 4, 5, 6, 7, 8, 9, 10, 11, 12}


def test_putting_again_is_using_and_counts_once() -> None:
    store = filled(10, room=10)
    before = store.bytes
    store.put([key(0)], [record(99)])
    assert (store.bytes, len(store)) == (before, 10)
    store.put([key(10)], [record(10)])
    assert store.get([key(0), key(1)], SIZE) == [record(99), None]


def test_never_holds_more_than_its_bound_whatever_the_sizes() -> None:
    store = LocalStore(50_000)
    for i in range(2000):
        size = 4 * (1 + i * 37 % 500)
        store.put([key(i)], [record(i, size)])
        assert store.bytes <= 50_000
    assert len(store) > 10


def test_what_is_larger_than_everything_is_not_kept() -> None:
    store = LocalStore(1000)
    store.put([key(0)], [record(0, 4000)])
    assert (len(store), store.bytes) == (0, 0)
    off = LocalStore(0)
    off.put([key(0)], [record(0)])
    assert len(off) == 0


def test_the_bound_is_one_of_real_memory() -> None:
    """Bytes as Python allocates them, keys and mapping included, within a fifth of the account."""
    size, rows = 516, 20_000
    store = LocalStore(rows * (size + ENTRY_BYTES))
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for start in range(0, 3 * rows, 500):
        batch = range(start, start + 500)
        store.put([key(i) for i in batch], [record(i, size) for i in batch])
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(store) == rows
    assert 0.8 * store.max_bytes < after - before < 1.1 * store.max_bytes


def test_threads_may_share_it() -> None:
    store, failures = LocalStore(200 * (SIZE + ENTRY_BYTES)), []

    def use(offset: int) -> None:
        try:
            for start in range(0, 3000, 10):
                keys = [key((start + offset + i) % 500) for i in range(10)]
                store.put(keys, [record(0)] * 10)
                store.get(keys, SIZE)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(97 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert store.bytes == len(store) * (SIZE + ENTRY_BYTES) <= store.max_bytes
