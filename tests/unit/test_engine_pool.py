"""BlockPool and PrefixCache: counts, eviction, naming."""

from __future__ import annotations

import pytest

from pentad.execution.kv import prefix
from pentad.execution.kv.pool import BlockPool
from pentad.execution.kv.prefix import PrefixCache


def chain(pool: BlockPool, names: str) -> list[int]:
    """Blocks registered one behind the other, held once each."""
    blocks = pool.allocate(len(names))
    parent = None
    for block, name in zip(blocks, names, strict=True):
        assert pool.register(block, name.encode(), parent) == block
        parent = name.encode()
    return blocks


def test_released_blocks_without_content_are_free_again() -> None:
    pool = BlockPool(4)
    blocks = pool.allocate(4)
    assert sorted(blocks) == [0, 1, 2, 3]
    assert pool.available == 0
    pool.release(blocks[:2])
    assert (pool.available, pool.held) == (2, 2)
    assert sorted(pool.allocate(2)) == sorted(blocks[:2])
    pool.check_integrity(dict.fromkeys(blocks, 1))


def test_a_shared_block_is_available_only_after_the_last_release() -> None:
    pool = BlockPool(1)
    (block,) = pool.allocate(1)
    pool.share(block)
    assert not pool.exclusive(block)
    pool.release([block])
    assert pool.available == 0
    assert pool.exclusive(block)
    pool.release([block])
    assert pool.available == 1


def test_registered_blocks_stay_findable_until_room_is_needed() -> None:
    pool = BlockPool(3)
    a, b = chain(pool, "ab")
    assert not pool.exclusive(b)
    pool.release([b, a])
    assert (pool.available, pool.held, pool.registered) == (3, 0, 2)
    (first,) = pool.allocate(1)
    assert first not in (a, b)
    assert (pool.find(b"a"), pool.find(b"b")) == (a, b)
    assert pool.allocate(1) == [b]
    assert (pool.find(b"a"), pool.find(b"b"), pool.evictions) == (a, None, 1)
    pool.check_integrity()


def test_eviction_goes_by_last_use_and_takes_leaves_before_what_stands_in_front() -> None:
    pool = BlockPool(5)
    a, b, c = chain(pool, "abc")
    (x,) = pool.allocate(1)
    pool.register(x, b"x", None)
    pool.release([x])
    pool.release([c, b, a])
    pool.share(a)
    pool.share(b)
    pool.release([b, a])  # used again: c is now the oldest of the three, x the oldest of all
    pool.allocate(1)
    assert [pool.allocate(1)[0] for _ in range(4)] == [x, c, b, a]


def test_equal_content_keeps_its_first_block() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(2)
    assert pool.register(first, b"k", None) == first
    assert pool.register(second, b"k", None) == first
    pool.check_integrity({first: 1, second: 1})


def test_the_version_changes_exactly_when_look_ups_may_differ() -> None:
    pool = BlockPool(1)
    (block,) = pool.allocate(1)
    before = pool.version
    pool.register(block, b"k", None)
    registered = pool.version
    pool.release([block])
    assert before != registered == pool.version
    pool.allocate(1)
    assert pool.version != registered


def test_misuse_asserts() -> None:
    pool = BlockPool(2)
    (block,) = pool.allocate(1)
    with pytest.raises(AssertionError, match="2 KV blocks asked, 1 available"):
        pool.allocate(2)
    pool.release([block])
    with pytest.raises(AssertionError, match="released more often"):
        pool.release([block])
    with pytest.raises(AssertionError, match="is free and cannot be shared"):
        pool.share(block)
    with pytest.raises(ValueError, match="num_blocks is 0"):
        BlockPool(0)


def test_check_integrity_finds_wrong_holders_and_broken_chains() -> None:
    pool = BlockPool(4)
    a, b = chain(pool, "ab")
    pool.check_integrity({a: 1, b: 1})
    with pytest.raises(AssertionError, match="reference counts differ"):
        pool.check_integrity({a: 2, b: 1})
    pool.release([a, b])  # in the wrong order: a would be evicted first
    with pytest.raises(AssertionError, match="would go before its leaf"):
        pool.check_integrity()
    pool.allocate(3)
    with pytest.raises(AssertionError, match="without its prefix"):
        pool.check_integrity()


def keys(
    cache: PrefixCache, tokens: list[int], blocks: int, tenant: str = "t", salt: str = ""
) -> list[bytes]:
    names: list[bytes] = []
    cache.extend(names, cache.root(tenant, salt), tokens, blocks)
    return names


def test_equal_keys_mean_equal_tokens_from_the_first_on() -> None:
    cache = PrefixCache(BlockPool(1), 2)
    first = keys(cache, [1, 2, 3, 4, 5, 6], 3)
    assert len(set(first)) == 3
    assert keys(cache, [1, 2, 3, 4, 9, 9], 3)[:2] == first[:2]
    assert keys(cache, [1, 2, 3, 4, 9, 9], 3)[2] != first[2]
    assert keys(cache, [9, 2, 3, 4, 5, 6], 3)[1:] != first[1:]
    assert not set(keys(cache, [9, 2, 3, 4, 5, 6], 3)) & set(first)


def test_keys_are_extended_where_they_ended() -> None:
    cache = PrefixCache(BlockPool(1), 2)
    tokens = [1, 2, 3, 4, 5, 6]
    names = keys(cache, tokens, 1)
    cache.extend(names, cache.root("t", ""), tokens, 3)
    assert names == keys(cache, tokens, 3)


def test_tenants_salts_and_caches_never_share_a_key() -> None:
    cache = PrefixCache(BlockPool(1), 2)
    roots = [
        cache.root("a", ""),
        cache.root("b", ""),
        cache.root("a", "b"),
        cache.root("ab", ""),
        cache.root("", "ab"),
        cache.root("a\ud800", ""),
        PrefixCache(BlockPool(1), 2).root("a", ""),
    ]
    assert len(set(roots)) == len(roots)
    same = PrefixCache(BlockPool(1), 2, secret=b"s").root("a", "")
    assert same == PrefixCache(BlockPool(1), 2, secret=b"s").root("a", "")


def test_find_stops_at_the_first_unknown_block() -> None:
    pool = BlockPool(3)
    cache = PrefixCache(pool, 2)
    names = keys(cache, [1, 2, 3, 4, 5, 6], 3)
    blocks = pool.allocate(3)
    for i in (0, 2):
        pool.register(blocks[i], names[i], None)
    assert cache.find(names, 3) == [blocks[0]]
    assert cache.find(names, 0) == []
    pool.register(blocks[1], names[1], names[0])
    assert cache.find(names, 3) == blocks
    assert cache.find(names, 2) == blocks[:2]


def test_names_are_the_same_whether_or_not_the_text_was_named_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "_MOST_STRETCHES", 4)
    turns = [list(range(blocks * 2)) for blocks in (7, 16, 40, 41, 90)]
    turns += [[9, *turns[-1][1:]], turns[2]]  # another beginning; one whose names were let go meanwhile
    cache = PrefixCache(BlockPool(1), 2, secret=b"s")
    for tokens in turns:
        fresh = PrefixCache(BlockPool(1), 2, secret=b"s")
        one_by_one: list[bytes] = []
        for blocks in range(1, len(tokens) // 2 + 1):
            fresh.extend(one_by_one, fresh.root("t", ""), tokens, blocks)
        assert keys(cache, tokens, len(tokens) // 2) == one_by_one
        assert keys(cache, tokens, len(tokens) // 2, tenant="other")[-1] != one_by_one[-1]
        assert len(cache._stretches) <= 4
