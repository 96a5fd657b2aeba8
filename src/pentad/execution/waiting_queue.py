"""WaitingQueue: who has no blocks yet, and who waits for another choice to compute their prompt."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterator

from pentad.execution.sequence import Sequence


class WaitingQueue:
    """Sequences in the order that schedulers see, and followers that they do not see yet.

    Preempted sequences stand in front of fresh ones, each group in order of arrival. A follower
    is held back until its leader has computed the prompt that they share. The length may be read
    from any thread.
    """

    __slots__ = ("_followers", "_held", "visible")

    def __init__(self) -> None:
        self.visible: list[Sequence] = []
        self._followers: dict[Sequence, list[Sequence]] = {}
        self._held = 0

    def __len__(self) -> int:
        return len(self.visible) + self._held

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.visible
        for followers in self._followers.values():
            yield from followers

    def enter(self, sequences: Collection[Sequence]) -> None:
        """Takes sequences that came together; of those with the same prompt the first computes it."""
        if len(sequences) == 1:
            for seq in sequences:
                self.push(seq)
            return
        leaders: dict[tuple[object, ...], Sequence] = {}
        for seq in sequences:
            request = seq.request
            same = (request.prompt, request.source, request.embedded, request.tenant, request.cache_salt)
            leader = leaders.setdefault(same, seq)
            if leader is seq or seq.prompt_tokens == 1:
                self.push(seq)
            else:
                self.hold(seq, leader)

    def push(self, seq: Sequence) -> None:
        """Shows the sequence to the scheduler, in its place."""
        insort(self.visible, seq, key=_place)

    def hold(self, seq: Sequence, leader: Sequence) -> None:
        """Holds the sequence back until its leader has computed their prompt."""
        self._followers.setdefault(leader, []).append(seq)
        self._held += 1

    def remove(self, seq: Sequence) -> None:
        """Takes a sequence out, because it starts or ends."""
        for leader, followers in self._followers.items():
            if seq in followers:
                followers.remove(seq)
                self._held -= 1
                if not followers:
                    del self._followers[leader]
                return
        self.visible.remove(seq)

    def free_followers(self, leader: Sequence) -> None:
        """Shows those who waited for the leader, whose prompt is computed now."""
        if self._followers:
            for seq in self._followers.pop(leader, ()):
                seq.leader = leader
                self._held -= 1
                self.push(seq)

    def replace_leader(self, leader: Sequence) -> None:
        """When a leader ends before its prompt is computed, its first follower takes its place."""
        if self._followers and (followers := self._followers.pop(leader, [])):
            heir, *rest = followers
            self._held -= 1
            self.push(heir)
            if rest:
                self._followers[heir] = rest


def _place(seq: Sequence) -> tuple[bool, int]:
    return (seq.num_preemptions == 0, seq.order)
