"""Tables by head: entries stay findable and the books stay true, whatever is dropped and appended."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pentad.execution.kv.head_tables import HeadTables


class Memory:
    """What lies where: an entry is (head, position), moved as a runner would."""

    def __init__(self, tables: HeadTables, heads: int, size: int) -> None:
        self.tables, self.heads, self.size = tables, heads, size
        self.at: dict[int, tuple[int, int]] = {}
        for head, slot in itertools.product(range(heads), range(int(tables.lens[0]))):
            self.write(head, slot, slot)

    def place(self, head: int, slot: int) -> int:
        return int(self.tables.pages[head, slot // self.size]) * self.size + slot % self.size

    def write(self, head: int, slot: int, position: int) -> None:
        self.at[self.place(head, slot)] = (head, position)

    def move(self, moves: np.ndarray) -> None:
        read = [self.at.get(source, (-1, -1)) for source in moves[:, 0].tolist()]
        self.at |= dict(zip(moves[:, 1].tolist(), read, strict=True))

    def held(self) -> list[set[int]]:
        """Positions that each head really holds, which its table must name."""
        found: list[set[int]] = [set() for _ in range(self.heads)]
        for head in range(self.heads):
            for slot in range(int(self.tables.lens[head])):
                entry = self.at[self.place(head, slot)]
                assert entry == (head, int(self.tables.positions[head, slot]))
                found[head].add(entry[1])
        return found


@given(st.data())
def test_entries_are_where_the_tables_say_whatever_is_dropped(data: st.DataObject) -> None:
    heads, size = data.draw(st.integers(1, 5), "heads"), data.draw(st.sampled_from([1, 2, 4]), "block size")
    text = data.draw(st.integers(1, 20), "text")
    numbers = itertools.count(100)
    blocks = [next(numbers) for _ in range(-(-text // size))]
    tables = HeadTables(blocks, heads, size, text)
    memory, wanted = Memory(tables, heads, size), [set(range(text)) for _ in range(heads)]
    for position in range(text, text + data.draw(st.integers(0, 8), "steps")):
        slots = tables.positions.shape[1]
        flat = data.draw(st.lists(st.booleans(), min_size=heads * slots, max_size=heads * slots))
        keep = np.array(flat).reshape(heads, slots)
        keep[:, 0] = True
        wanted = [
            {int(p) for p, kept in zip(row, kept_row, strict=True) if kept and p >= 0}
            for row, kept_row in zip(tables.positions, keep, strict=True)
        ]
        needed = tables.blocks_for(keep)
        assert needed == -(-sum(-(-len(kept) // size) for kept in wanted) // heads)
        own = data.draw(st.permutations(tables.blocks))[: data.draw(st.integers(0, needed))]
        stay = own + [next(numbers) for _ in range(needed - len(own))]
        memory.move(tables.drop(keep, stay))
        assert tables.blocks == stay
        tables.check_integrity()
        assert memory.held() == wanted
        tables.append(position, [next(numbers) for _ in range(tables.missing_blocks())])
        for head in range(heads):
            memory.write(head, int(tables.lens[head]) - 1, position)
            wanted[head].add(position)
        tables.check_integrity()
        assert memory.held() == wanted


def test_a_full_cache_that_loses_one_entry_moves_one_per_head() -> None:
    tables = HeadTables([3, 1], heads=2, block_size=4, slots=8)
    keep = np.ones((2, 8), bool)
    keep[0, 2] = keep[1, 5] = False
    moves = tables.drop(keep, [3, 1])
    # Head 0: the last entry of page 1 * 2 goes to entry 2 of page 3 * 2; head 1 within its second page.
    assert moves.tolist() == [[2 * 4 + 3, 6 * 4 + 2], [3 * 4 + 3, 3 * 4 + 1]]
    assert tables.positions.tolist() == [[0, 1, 7, 3, 4, 5, 6, -1], [0, 1, 2, 3, 4, 7, 6, -1]]
    assert tables.missing_blocks() == 0


def test_heads_of_different_length_share_the_pages_of_few_blocks() -> None:
    tables = HeadTables([0, 1, 2, 3], heads=2, block_size=4, slots=16)
    keep = np.zeros((2, 16), bool)
    keep[0] = True
    keep[1, 0] = True
    assert tables.blocks_for(keep) == 3  # four pages and one, in blocks of two
    tables.drop(keep, [0, 1, 2])
    assert tables.lens.tolist() == [16, 1]
    assert sorted(tables.fill().values()) == [1, 2, 2]
    assert tables.missing_blocks() == 0  # the spare page is the next one of head 0


def test_books_that_do_not_agree_are_noticed() -> None:
    tables = HeadTables([0, 1], heads=2, block_size=4, slots=6)
    tables.blocks.pop()
    with pytest.raises(AssertionError, match="not those of its blocks"):
        tables.check_integrity()
