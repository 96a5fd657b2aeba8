"""How many of equal engines compute prompts while the others answer, as lengths change."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseBalance:
    """Deals engines out to the phases by the time that each took of late.

    A request's prompt takes its tokens times what a prompt token takes, its answer its tokens times what a
    token takes in a full batch; engines are shared out in proportion, one at least to each phase. Nothing
    changes while the present division is off by less than half an engine and `slack`, so that chance does
    not move engines to and fro.

    Source: ours; the survey asks to shift work between prompt and generation devices as reasoning lengths
    vary (section VI-E). Splitwise's mixed pool (ISCA'24) does so machine by machine, by queue lengths.
    """

    interval_s: float
    """Between two looks."""
    slack: float = 0.25
    """Of an engine, by which a division may be off beyond half of one."""

    def __post_init__(self) -> None:
        in_range("rebalance_s", self.interval_s, above=0)
        in_range("slack", self.slack, least=0, most=0.5)

    def prefill_engines(self, engines: int, now: int, *, prompt_s: float, answer_s: float) -> int:
        """How many of the engines compute prompts from now on.

        Args:
            engines: of both phases, two at least.
            now: how many of them compute prompts at present.
            prompt_s, answer_s: time of an engine that a request takes in each phase.
        """
        if prompt_s + answer_s <= 0:
            return now
        wanted = engines * prompt_s / (prompt_s + answer_s)
        if abs(wanted - now) <= 0.5 + self.slack:
            return now
        return min(max(1, round(wanted)), engines - 1)
