"""Database: a shop's tables in SQL, with questions to answer and changes to make."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.environment.base import Score
from pentad.agent.environment.simulated import Act, Simulated, SimulatedWorld, State, Task, act, refuse

_COLUMNS = {
    "customers": "id INTEGER PRIMARY KEY, name TEXT, city TEXT",
    "products": "id INTEGER PRIMARY KEY, title TEXT, price INTEGER",
    "orders": "id INTEGER PRIMARY KEY, customer_id INTEGER, product_id INTEGER, units INTEGER, status TEXT",
}
_NAMES = ("Ada", "Boris", "Chen", "Dalia", "Emil", "Fatima", "Goran", "Hana", "Ivo", "Jun")
_CITIES = ("Lisbon", "Oslo", "Quito", "Riga")
_TITLES = ("lamp", "desk", "chair", "kettle", "mirror", "clock", "rug", "vase")
_STATUSES = ("open", "paid", "sent")
_CHANGING = frozenset(
    {"random", "randomblob", "date", "time", "datetime", "julianday", "strftime", "unixepoch"}
)
_ALLOWED = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE,
     sqlite3.SQLITE_DELETE, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)  # fmt: skip
_MOST_ROWS, _MOST_OPS = 50, 2_000_000
Rows = dict[str, list[list[Any]]]
"""By table, in the order of their ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database(Simulated):
    """Customers, products and orders in SQLite: a question to answer, or a change to make in the tables.

    Source: AgentBench, database (Liu et al. 2023). Ours makes tables and tasks by the seed; a question is
    judged by what is submitted, a change by all rows of all tables.
    """

    rows: int = 40
    """How many orders there are, 10 to 500."""

    name: ClassVar[str] = "database"

    def world(self) -> Tables:
        """Tables with that many orders."""
        return Tables(self.seed, self.rows)


class Tables(SimulatedWorld):
    """The rows of each table as data. Every statement runs in a database of its own that is made of them."""

    def __init__(self, seed: int, rows: int) -> None:
        self._rows = max(10, min(rows, 500))
        super().__init__(seed)

    def begin(self, chance: random.Random) -> tuple[State, Task]:
        """Rows by chance; the customer of the task has at least one open and one paid order."""
        tables: Rows = {
            "customers": [[i, name, chance.choice(_CITIES)] for i, name in enumerate(_NAMES, 1)],
            "products": [[i, title, chance.randint(5, 90)] for i, title in enumerate(_TITLES, 1)],
            "orders": [],
        }
        customer = chance.randint(1, len(_NAMES))
        for i in range(1, self._rows + 1):
            who = customer if i <= 4 else chance.randint(1, len(_NAMES))
            status = ("open", "paid")[i % 2] if i <= 4 else chance.choice(_STATUSES)
            tables["orders"].append([i, who, chance.randint(1, len(_TITLES)), chance.randint(1, 9), status])
        state: State = {"tables": tables, "submitted": None, "answer": None, "wanted": None}
        goal, statement = chance.choice((_units, _spent, _cancel, _place))(customer, tables)
        columns = "; ".join(f"{name} ({kinds})" for name, kinds in _COLUMNS.items())
        if statement.startswith("SELECT"):
            ((answer,),) = _executed(tables, statement)[1]
            state["answer"] = answer
            solution: tuple[Act, ...] = (act("sql", statement=statement), act("submit", answer=str(answer)))
            goal += " Submit the number."
        else:
            state["wanted"] = _executed(tables, statement)[0]
            solution = (act("sql", statement=statement),)
        return state, Task(goal=f"An SQLite database has the tables {columns}. {goal}", solution=solution)

    def actions(self) -> Sequence[Callable[..., Any]]:
        """SQL, and an answer."""
        return (self.sql, self.submit)

    async def sql(self, statement: str) -> str:
        """Runs one SQL statement and returns its rows.

        Args:
            statement: a SELECT, INSERT, UPDATE or DELETE of SQLite.
        """
        try:
            tables, rows, changed = _run(self.state["tables"], statement)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise refuse(f"SQLite: {error}") from None
        self.state["tables"] = tables
        if not rows:
            return f"{changed} rows changed." if changed else "No rows."
        more = f"\n({len(rows) - _MOST_ROWS} more rows)" if len(rows) > _MOST_ROWS else ""
        return "\n".join(" | ".join(map(str, row)) for row in rows[:_MOST_ROWS]) + more

    async def submit(self, answer: str) -> str:
        """Gives the answer to the question; it can be given once.

        Args:
            answer: a number.
        """
        if self.state["submitted"] is not None:
            raise refuse("an answer has been submitted already")
        self.state["submitted"] = answer
        return "The answer was taken down."

    def score(self) -> Score:
        """1 for the right answer, or for tables in which everything and nothing else has been changed."""
        wanted, given = self.state["wanted"], self.state["submitted"]
        if wanted is not None:
            right = wanted == self.state["tables"]
            return Score(value=float(right), about=f"the tables are {'as' if right else 'not as'} asked")
        try:
            right = given is not None and float(given) == float(self.state["answer"])
        except ValueError:
            right = False
        return Score(value=float(right), about=f"submitted {given}, right is {self.state['answer']}")


def _executed(tables: Rows, statement: str) -> tuple[Rows, list[tuple[Any, ...]]]:
    after, rows, _ = _run(tables, statement)
    return after, rows


def _run(tables: Rows, statement: str) -> tuple[Rows, list[tuple[Any, ...]], int]:
    """The tables after one statement, its rows, and how many rows it changed. Raises sqlite3.Error."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for name, columns in _COLUMNS.items():
            connection.execute(f"CREATE TABLE {name} ({columns})")
            marks = ", ".join("?" * len(columns.split(",")))
            connection.executemany(f"INSERT INTO {name} VALUES ({marks})", tables[name])
        before = connection.total_changes
        connection.set_authorizer(_authorized)
        spent = iter(range(_MOST_OPS // 1000))
        connection.set_progress_handler(lambda: next(spent, None) is None, 1000)
        rows = connection.execute(statement).fetchmany(10 * _MOST_ROWS)
        connection.set_progress_handler(None, 0)
        after = {
            name: [list(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY 1")]
            for name in _COLUMNS
        }
        return after, rows, connection.total_changes - before
    finally:
        connection.close()


def _authorized(action: int, _: str | None, name: str | None, *_more: object) -> int:
    """Reading and changing rows only, by functions whose result is always the same."""
    changing = action == sqlite3.SQLITE_FUNCTION and name in _CHANGING
    return sqlite3.SQLITE_OK if action in _ALLOWED and not changing else sqlite3.SQLITE_DENY


def _units(customer: int, tables: Rows) -> tuple[str, str]:
    name = tables["customers"][customer - 1][1]
    return (
        f"How many units has {name} ordered in all paid orders together?",
        f"SELECT sum(units) FROM orders WHERE status = 'paid' AND customer_id = {customer}",
    )


def _spent(customer: int, tables: Rows) -> tuple[str, str]:
    name = tables["customers"][customer - 1][1]
    return (
        f"What do all orders of {name} cost together, whatever their status (units times price)?",
        "SELECT sum(units * price) FROM orders JOIN products ON products.id = product_id "
        f"WHERE customer_id = {customer}",
    )


def _cancel(customer: int, tables: Rows) -> tuple[str, str]:
    name = tables["customers"][customer - 1][1]
    return (
        f"Set the status of every open order of {name} to 'cancelled'; change nothing else.",
        f"UPDATE orders SET status = 'cancelled' WHERE status = 'open' AND customer_id = {customer}",
    )


def _place(customer: int, tables: Rows) -> tuple[str, str]:
    name, product = tables["customers"][customer - 1][1], tables["products"][customer % len(_TITLES)]
    ident = len(tables["orders"]) + 1
    return (
        f"Add an order with id {ident} for {name}: 3 units of the {product[1]}, status 'open'.",
        f"INSERT INTO orders VALUES ({ident}, {customer}, {product[0]}, 3, 'open')",
    )
