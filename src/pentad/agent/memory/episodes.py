"""Episodes: a run that was answered, kept as one item of goal and answer."""

from __future__ import annotations

from pentad.agent.memory.base import Experience, Item


def episode(experience: Experience) -> Item | None:
    """The item, whose id is the run's, so that a restart keeps it once; None for a run without an answer.

    It was made of what the run recalled, and is forgotten with that.
    """
    if not experience.answered:
        return None
    return Item(
        id=experience.run_id,
        text=experience.text,
        kind="episode",
        source=experience.run_id,
        derived_from=experience.recalled,
    )
