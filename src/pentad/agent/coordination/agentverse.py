"""AgentVerse: recruit members for the task, let them decide, evaluate, and recruit anew from the feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pentad.agent.coordination.base import MEMBERS, PEERS, Assigns, Concludes, GivesUp, Move, Team
from pentad.agent.coordination.cards import best, fit
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.coordination.reading import field, share, without
from pentad.agent.coordination.votes import told, vote
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentVerse(Leaderless):
    """Recruits members whose cards fit, has them work, and reshapes the team by what the evaluator says.

    The last member named evaluates and does not work. `horizontal` asks all recruits at once and takes the
    vote; in `vertical` the best fit answers, the others criticise, and it answers anew.

    Source: Chen et al. 2023, "AgentVerse", section 2: recruitment, decision, execution, evaluation. Ours
    recruits among the members of the agent file by their cards, without a call, and members execute.
    """

    recruits: int = 2
    """Members at work in a round."""
    rounds: int = 2
    """Rounds, at most."""
    passes: float = 0.7
    """The evaluator's score, 0 to 1, at which an answer is taken."""
    structure: Literal["horizontal", "vertical"] = "horizontal"
    """How a round comes to its answer."""

    name: ClassVar[str] = "agentverse"
    needs: ClassVar[frozenset[str]] = frozenset({MEMBERS, PEERS})

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("recruits", self.recruits, least=1)
        in_range("rounds", self.rounds, least=1)
        in_range("passes", self.passes, least=0, most=1)

    def move(self, team: Team) -> Move:
        """The next part of a round: work, criticism and revision, evaluation."""
        *_, evaluator = team.members
        if not team.rounds:
            return self._recruits(team, "")
        last = team.rounds[-1]
        purpose = last[0].purpose
        if purpose == "evaluate":
            score, feedback = self._evaluation(team)
            if score >= self.passes or last[0].about + 1 >= self.rounds:
                return self.best(team)
            return self._recruits(team, feedback)
        if not any(report.ok for report in last) and purpose != "criticise":
            return self.best(team)
        about = last[0].about
        if self.structure == "vertical" and purpose == "work":
            critics = [m for m in self._team(team, self._feedback(team)) if m != last[0].member]
            if critics:
                question = "Say in a few words what is wrong with it, if anything."
                return self.asks(
                    critics, f"{team.state.goal}\n\n{told(last)}\n\n{question}", "criticise", about
                )
        if purpose == "criticise":
            heard = f"{told(team.rounds[-2])}\n\n{told(last)}"
            task = f"{team.state.goal}\n\n{heard}\n\nAnswer anew, ending with: answer: ..."
            return self.asks([team.rounds[-2][0].member], task, "revise", about)
        found = vote(last)
        task = (
            f"Somebody was asked:\n{team.state.goal}\n\nThe answer:\n{found.answer if found else ''}\n\n"
            "Say what is missing, and end with a line that says how good it is, 0 to 1, like `score: 0.7`."
        )
        return self.asks([evaluator], task, "evaluate", about)

    def best(self, team: Team) -> Concludes | GivesUp:
        """The answer of the newest round that has one."""
        for number in range(len(team.rounds) - 1, -1, -1):
            reports = [r for r in team.rounds[number] if r.purpose in ("work", "revise")]
            found = vote(reports)
            if found is not None:
                score, _ = self._evaluation(team)
                return Concludes(
                    answer=found.answer,
                    decisions=(self.decision("answer", found.answer, found.by_answer, f"score {score:g}"),),
                )
        return GivesUp(why="no member answered")

    def _recruits(self, team: Team, feedback: str) -> Assigns:
        chosen = self._team(team, feedback)
        workers = chosen if self.structure == "horizontal" else chosen[:1]
        about = sum(r[0].purpose == "evaluate" for r in team.rounds)
        task = team.state.goal + (
            f"\n\nAn evaluator said of an earlier answer:\n{feedback}" if feedback else ""
        )
        fits = self._fits(team, feedback)
        decision = self.decision("recruits", ", ".join(chosen), {**fits}, "fit of cards")
        return self.asks(workers, task, "work", about, (decision,))

    def _team(self, team: Team, feedback: str) -> tuple[str, ...]:
        return best(self._fits(team, feedback), self.recruits)

    def _fits(self, team: Team, feedback: str) -> dict[str, float]:
        """How well each but the evaluator fits the task, and twice as much what was missing.

        The team that failed was chosen by the task already, so its feedback must be able to change it.
        """
        workers = dict(list(team.members.items())[:-1])
        fits, more = fit(team.state.goal, workers), fit(feedback, workers)
        most, missed = max(fits.values()) or 1.0, max(more.values()) or 1.0
        return {name: fits[name] / most + 2 * more[name] / missed for name in workers}

    def _feedback(self, team: Team) -> str:
        return self._evaluation(team)[1]

    def _evaluation(self, team: Team) -> tuple[float, str]:
        """The newest score and what was said with it; 0 where there is none."""
        for report in reversed(team.reports):
            if report.purpose == "evaluate" and report.ok:
                return share(field(report.text, "score"), 0.0), without(report.text, ["score"])
        return 0.0, ""
