"""Checkpoints of LangGraph's graphs, kept in the journal's database. Needs the extra `langgraph`."""

from pentad.agent.langgraph.saver import JournalSaver

__all__ = ["JournalSaver"]
