"""calendar: today's date, weekdays and the days between dates."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from pentad.agent.tools.base import Example, Tool, ToolContext, ToolServices
from pentad.errors import ToolFailed

_DATE = {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
_SCHEMA = {
    "type": "object",
    "anyOf": [
        {
            "properties": {"operation": {"const": "weekday"}, "date": _DATE},
            "required": ["operation", "date"],
            "additionalProperties": False,
        },
        {
            "properties": {"operation": {"const": "days_between"}, "start": _DATE, "end": _DATE},
            "required": ["operation", "start", "end"],
            "additionalProperties": False,
        },
        {
            "properties": {"operation": {"const": "add_days"}, "date": _DATE, "days": {"type": "integer"}},
            "required": ["operation", "date", "days"],
            "additionalProperties": False,
        },
        {
            "properties": {"operation": {"const": "today"}},
            "required": ["operation"],
            "additionalProperties": False,
        },
    ],
}


def build(_: ToolServices) -> Tool:
    """The tool. Today is what the context's wall clock says, in UTC."""

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> str:
        match arguments["operation"]:
            case "today":
                today = datetime.datetime.fromtimestamp(context.wall(), datetime.UTC).date()
                return f"{today} ({today:%A})"
            case "weekday":
                date = _date(arguments["date"])
                return f"{date} is a {date:%A}"
            case "days_between":
                start, end = _date(arguments["start"]), _date(arguments["end"])
                return f"from {start} to {end} there are {(end - start).days} days"
            case _:
                return _later(_date(arguments["date"]), arguments["days"])

    return Tool(
        name="calendar",
        description="Tells the weekday of a date, the days between two dates, a later date, or today's date.",
        parameters=_SCHEMA,
        call=call,
        effects="none",
        timeout_s=5.0,
        examples=(
            Example(
                task="which weekday is 2024-03-07",
                arguments={"operation": "weekday", "date": "2024-03-07"},
                result="2024-03-07 is a Thursday",
            ),
            Example(
                task="how many days are there from 2021-05-01 to 2021-06-11",
                arguments={"operation": "days_between", "start": "2021-05-01", "end": "2021-06-11"},
                result="from 2021-05-01 to 2021-06-11 there are 41 days",
            ),
            Example(
                task="which date is 30 days after 2022-02-10",
                arguments={"operation": "add_days", "date": "2022-02-10", "days": 30},
                result="2022-02-10 plus 30 days is 2022-03-12 (Saturday)",
            ),
        ),
    )


def _later(date: datetime.date, days: int) -> str:
    try:
        later = date + datetime.timedelta(days=days)
    except OverflowError:
        raise ToolFailed(f"{days} days from {date} is outside the years 1 to 9999") from None
    return f"{date} plus {days} days is {later} ({later:%A})"


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise ToolFailed(f"{text!r} is no date; write YYYY-MM-DD") from None
