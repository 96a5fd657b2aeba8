"""The tool `database`: whatever a query says, a tenant sees its own rows only, and each query is recorded."""

from __future__ import annotations

import json
import pathlib
import sqlite3

import pytest

from agent_support import context, run
from pentad.agent.tools.base import Tool, ToolServices
from pentad.agent.tools.builtin import database
from pentad.agent.tools.builtin.database import Grant
from pentad.agent.tools.invocation import Outcome
from pentad.agent.tools.invocation import call as invoke
from pentad.errors import InvalidRequest
from pentad.testing.agents import scripted_models

SERVICES = ToolServices(models=scripted_models([])[0])
GRANTS = {
    "ann": Grant(owner="a'nn"),
    "bob": Grant(owner="bob"),
    "cut": Grant(owner="bob", tables=("orders",)),
}


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as opened:
        opened.executescript(
            """
            CREATE TABLE orders (id INTEGER, item TEXT, price REAL, owner TEXT);
            CREATE TABLE notes (id INTEGER, text TEXT, owner TEXT);
            CREATE TABLE secrets (id INTEGER, text TEXT);
            INSERT INTO secrets VALUES (1, 'MARK-secret');
            """
        )
        for owner, mark in (("a'nn", "MINE"), ("bob", "MARK-bob")):
            for number in range(3):
                opened.execute("INSERT INTO orders VALUES (?, ?, ?, ?)", (number, mark, 10 + number, owner))
                opened.execute("INSERT INTO notes VALUES (?, ?, ?)", (number, mark, owner))
    opened.close()
    return path


def tool(file: pathlib.Path, **options: object) -> Tool:
    made = {"database": str(file), "grants": GRANTS, **options}
    return database.build(SERVICES, **made)  # type: ignore[arg-type]


def asked(made: Tool, query: str, tenant: str = "ann") -> Outcome:
    return run(invoke(made, {"query": query}, context(tenant=tenant)))


PROBES = """
SELECT * FROM main.orders
SELECT * FROM main.secrets
SELECT * FROM secrets
SELECT * FROM orders WHERE owner = 'bob'
SELECT * FROM orders WHERE 1 = 1 OR owner = 'bob'
SELECT owner FROM orders
SELECT * FROM orders UNION SELECT * FROM secrets
SELECT * FROM orders UNION ALL SELECT id, text, 0 FROM notes WHERE id IN (SELECT id FROM secrets)
WITH orders AS (SELECT * FROM main.orders) SELECT * FROM orders
WITH orders AS (SELECT * FROM temp.orders) SELECT * FROM orders
WITH secrets AS (SELECT * FROM main.secrets) SELECT * FROM secrets
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT * FROM n
SELECT sql FROM sqlite_master
SELECT sql FROM sqlite_temp_master
SELECT sql FROM temp.sqlite_master
SELECT sql FROM sqlite_schema
SELECT * FROM pragma_database_list
SELECT * FROM pragma_table_info('orders')
SELECT * FROM pragma_table_list
SELECT * FROM sqlite_dbpage
SELECT * FROM dbstat
PRAGMA database_list
PRAGMA writable_schema = 1
ATTACH 'shop.db' AS other
ATTACH ':memory:' AS other
DETACH main
SELECT load_extension('x')
SELECT readfile('/etc/passwd')
SELECT writefile('x', 'y')
SELECT fts3_tokenizer('simple')
SELECT zeroblob(999999999)
SELECT randomblob(10)
CREATE TEMP TABLE x AS SELECT * FROM orders
CREATE TABLE x (a)
CREATE TEMP VIEW y AS SELECT * FROM main.orders
CREATE TRIGGER t AFTER INSERT ON orders BEGIN SELECT 1; END
DROP VIEW orders
DROP VIEW temp.orders
INSERT INTO orders VALUES (9, 'x', 1)
UPDATE orders SET item = 'x'
DELETE FROM orders
DELETE FROM main.orders
VACUUM INTO '/tmp/copy.db'
BEGIN
EXPLAIN SELECT * FROM orders
SELECT 1; SELECT * FROM main.orders
SELECT * FROM orders; DROP VIEW orders
SELECT * FROM "main"."orders"
SELECT * FROM [main].[orders]
SELECT * FROM `main`.`orders`
SELECT * FROM orders, main.orders AS o
SELECT (SELECT group_concat(text) FROM main.notes) FROM orders
SELECT * FROM orders WHERE EXISTS (SELECT 1 FROM main.secrets)
SELECT id FROM orders ORDER BY (SELECT text FROM main.secrets)
SELECT count(*) FROM main.orders
SELECT main.orders.item FROM orders
SELECT rowid, * FROM orders
SELECT * FROM nothing.orders
""".strip().splitlines()


@pytest.mark.row("tool-proprietary", "mechanism", claims=(1,))
def test_no_probe_brings_a_row_of_another_tenant_or_changes_anything(file: pathlib.Path) -> None:
    made = tool(file, timeout_s=1.0)
    before = file.read_bytes()
    leaked = [query for query in PROBES if "MARK" in asked(made, query).content]
    assert leaked == []
    assert len(PROBES) >= 50
    assert asked(made, "SELECT * FROM orders").content.count("MINE") == 3, (
        "one's own rows are there after all"
    )
    assert file.read_bytes() == before
    assert not list(file.parent.glob("copy.db"))
    assert asked(made, "SELECT count(*), sum(price) FROM orders").content == "count(*) | sum(price)\n3 | 33.0"


@pytest.mark.row("tool-proprietary", "mechanism", claims=(1,))
def test_the_tenant_is_the_runs_and_who_has_no_grant_sees_nothing(file: pathlib.Path) -> None:
    made = tool(file)
    assert "MARK-bob" in asked(made, "SELECT item FROM orders", "bob").content
    stranger = asked(made, "SELECT item FROM orders", "eve")
    assert (stranger.status, stranger.content) == ("denied", "tenant 'eve' has no grant for 'database'")
    assert asked(made, "SELECT text FROM notes", "bob").status == "ok"
    assert asked(made, "SELECT item FROM orders", "cut").status == "ok"
    outside = asked(made, "SELECT text FROM notes", "cut")
    assert (outside.status, "MARK" in outside.content) == ("denied", False)


def test_each_query_is_written_down_before_its_result_is_given(file: pathlib.Path) -> None:
    audit = file.parent / "audit.jsonl"
    made = tool(file, audit=str(audit))
    asked(made, "SELECT * FROM orders")
    asked(made, "SELECT * FROM sqlite_master", "bob")
    lines = [json.loads(line) for line in audit.read_text("utf-8").splitlines()]
    assert [(x["tenant"], x["query"], x.get("rows"), "refused" in x) for x in lines] == [
        ("ann", "SELECT * FROM orders", 3, False),
        ("bob", "SELECT * FROM sqlite_master", None, True),
    ]
    closed = tool(file, audit=str(file.parent / "none" / "audit.jsonl"))
    outcome = asked(closed, "SELECT * FROM orders")
    assert outcome.status == "failed"
    assert "cannot be written down" in outcome.content
    assert "MINE" not in outcome.content


def test_long_results_and_endless_queries_are_bounded_and_the_model_is_told(file: pathlib.Path) -> None:
    made = tool(file, most_rows=2, timeout_s=0.3)
    assert asked(made, "SELECT id FROM orders").content == "id\n0\n1\n[more than 2 rows; narrow the query]"
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    assert asked(made, endless).content == "no result within 0.3 s"
    assert asked(made, "SELEC x").content.startswith("SQL: near")


def test_a_file_that_cannot_serve_is_refused_with_the_option_to_change(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidRequest, match=r"tool_options\.database\.database"):
        database.build(SERVICES, database=str(tmp_path / "none.db"))
    empty = tmp_path / "empty.db"
    sqlite3.connect(empty).close()
    with pytest.raises(InvalidRequest, match="owner_column"):
        database.build(SERVICES, database=str(empty))
    empty.write_bytes(b"no database at all" * 100)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        database.build(SERVICES, database=str(empty))
