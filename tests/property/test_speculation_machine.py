"""Drafts of any kind change no token in any history of adding, preempting, cancelling and failing."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize
from test_engine_machine import EngineMachine

from pentad.execution.speculation.stage import Speculation
from pentad.testing.runners import reference
from pentad.testing.speculators import ArbitrarySpeculator


class SpeculationMachine(EngineMachine):
    """The engine's machine, with a speculator that is right or wrong at random, by chains or trees.

    Sampled requests have the same tokens too: drafts that were chosen and not drawn leave every
    draw as it would have been.
    """

    @initialize(
        seed=st.integers(0, 999),
        num_blocks=st.integers(12, 30),
        block_size=st.sampled_from([1, 3, 4]),
        max_sequences=st.integers(1, 5),
        max_batch_tokens=st.integers(1, 24),
        preempt=st.sampled_from([0.0, 0.2]),
        most_tokens=st.integers(1, 9),
        hit_probability=st.sampled_from([0.0, 0.6, 0.95]),
        chains=st.booleans(),
    )
    def start(  # type: ignore[override]
        self,
        seed: int,
        num_blocks: int,
        block_size: int,
        max_sequences: int,
        max_batch_tokens: int,
        preempt: float,
        most_tokens: int,
        hit_probability: float,
        chains: bool,
    ) -> None:
        speculator = ArbitrarySpeculator(
            seed,
            97,
            oracle=self._oracle,
            hit_probability=hit_probability,
            chains=chains,
        )
        self.expected: dict[str, list[int]] = {}
        self.begin(
            seed,
            num_blocks=num_blocks,
            block_size=block_size,
            preempt=preempt,
            max_sequences=max_sequences,
            max_batch_tokens=max_batch_tokens,
            prefix_cache=bool(seed % 2),
            speculation=Speculation(speculator, most_tokens=most_tokens, adaptive=bool(seed % 3 == 0)),
        )

    def _oracle(self, id: str, text: Sequence[int]) -> int:
        """What the sequence must get next, however it is drawn; behind wrong tokens anything will do."""
        if id not in self.expected:
            request = self.requests[id]
            self.expected[id] = [*request.prompt, *reference(request), 0]
        return self.expected[id][min(len(text), len(self.expected[id]) - 1)]


SpeculationMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestSpeculationMachine = SpeculationMachine.TestCase
