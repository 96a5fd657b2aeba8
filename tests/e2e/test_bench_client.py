"""The load generator against a scripted server: what it sends, when, and what it notes."""

from __future__ import annotations

import json
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest


class Scripted(socketserver.ThreadingTCPServer):
    """Answers every chat with three words, 50 ms apart, and keeps what it was asked."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.most_at_once = self.at_once = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(socketserver.StreamRequestHandler):
    server: Scripted

    def handle(self) -> None:
        length = 0
        while (line := self.rfile.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = json.loads(self.rfile.read(length))
        with self.server.lock:
            self.server.asked.append(body)
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        if "prompt" in body:
            self._complete(body)
        elif body["messages"][-1]["content"] == "break":
            self._ended()
            self.wfile.write(b"HTTP/1.1 500 Oops\r\n\r\nbroken")
        else:
            self._answer()

    def _ended(self) -> None:
        """Before the last byte is sent: with it the client may ask again."""
        with self.server.lock:
            self.server.at_once -= 1

    def _answer(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self._event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for word in ("one", " two", " three"):
            time.sleep(0.05)
            self._event({"choices": [{"delta": {"content": word}}]})
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}
        self._event({"choices": [], "usage": usage})
        self._ended()
        self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _complete(self, body: dict[str, Any]) -> None:
        """A completion of one token; a prompt of the token 0 is refused."""
        if body["prompt"] == [0]:
            self._ended()
            self.wfile.write(b"HTTP/1.1 400 Bad\r\n\r\nrefused")
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self._event({"id": f"cmpl-{body['prompt'][0]}", "choices": [{"text": ""}]})
        self._event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
        self._ended()
        self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, event: dict[str, Any]) -> None:
        self._chunk(f"data: {json.dumps(event)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        # Torn in two: an event may arrive in pieces.
        for part in (data[:20], data[20:]):
            if part:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as scripted:
        thread = threading.Thread(target=scripted.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield scripted
        scripted.shutdown()
        thread.join()


def play(server: Scripted, runs: list[dict[str, Any]], concurrency: int) -> dict[str, Any]:
    host, port = server.server_address[:2]
    plan = {"host": host, "port": port, "path": "/v1/chat/completions", "headers": ["X-Any: 1"],
            "body": {"model": "m"}, "runs": runs, "concurrency": concurrency, "deadline_s": 20}  # fmt: skip
    command = [sys.executable, "-m", "pentad.application.bench.client"]
    done = subprocess.run(
        command, input=json.dumps(plan), capture_output=True, text=True, timeout=30, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def play_graph(server: Scripted, requests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    host, port = server.server_address[:2]
    plan = {"host": host, "port": port, "path": "/v1/completions", "headers": [], "body": {"model": "m"},
            "requests": requests, "deadline_s": 20}  # fmt: skip
    command = [sys.executable, "-m", "pentad.application.bench.graph_client"]
    done = subprocess.run(
        command, input=json.dumps(plan), capture_output=True, text=True, timeout=30, check=True
    )
    return {answer["id"]: answer for answer in json.loads(done.stdout)["answers"]}


def asked(
    name: str, token: int, *waits_for: str, pause_s: float = 0.0, at_s: float = 0.0, parent: str | None = None
) -> dict[str, Any]:
    body = {"prompt": [token], "max_tokens": 1, "pentad": {"run_id": "r"}}
    return {
        "id": name, "at_s": at_s, "waits_for": waits_for, "pause_s": pause_s, "parent": parent, "body": body,
    }  # fmt: skip


def run(name: str, *turns: str, at_s: float | None = None, pause_s: float = 0.0) -> dict[str, Any]:
    return {
        "name": name,
        "messages": [{"role": "system", "content": "s"}],
        "turns": [{"user": turn, "pause_s": pause_s, "max_tokens": 3} for turn in turns],
        "at_s": at_s,
    }


def test_events_are_counted_with_their_times_however_they_are_torn(server: Scripted) -> None:
    (answer,) = play(server, [run("a", "hi")], 1)["answers"]
    assert len(answer["events_s"]) == 3
    assert answer["events_s"][0] - answer["sent_s"] >= 0.04
    assert answer["events_s"][2] - answer["events_s"][0] >= 0.08
    assert (answer["completion_tokens"], answer["prompt_tokens"], answer["cached_tokens"]) == (3, 9, 5)
    assert "error" not in answer


def test_a_closed_loop_never_has_more_in_flight_than_asked_for(server: Scripted) -> None:
    played = play(server, [run(f"r{i}", "hi") for i in range(7)], 3)
    assert len(played["answers"]) == 7
    assert server.most_at_once == 3
    assert 0 < played["cpu_seconds"] < played["seconds"]


def test_a_later_turn_waits_for_its_pause_and_holds_the_answers_so_far(server: Scripted) -> None:
    played = play(server, [run("r", "first", "second", pause_s=0.2)], 1)
    first, second = played["answers"]
    assert second["sent_s"] - first["ended_s"] >= 0.19
    assert [m["content"] for m in server.asked[1]["messages"]] == ["s", "first", "one two three", "second"]
    assert played["runs"][0]["complete"]


def test_timed_runs_arrive_at_their_times_whatever_is_in_flight(server: Scripted) -> None:
    played = play(server, [run("late", "hi", at_s=0.3), run("early", "hi", at_s=0.25)], 1)
    sent = {answer["run"]: answer["sent_s"] for answer in played["answers"]}
    assert sent["early"] >= 0.25
    assert sent["late"] >= 0.3
    assert server.most_at_once == 2


def test_a_failure_ends_its_run_and_is_noted_and_the_others_go_on(server: Scripted) -> None:
    played = play(server, [run("bad", "break", "never"), run("good", "hi")], 2)
    answers = {answer["run"]: answer for answer in played["answers"]}
    assert "broken" in answers["bad"]["error"]
    assert "error" not in answers["good"]
    assert {r["run"]: r["complete"] for r in played["runs"]} == {"bad": False, "good": True}
    assert len(server.asked) == 2


def test_a_request_waits_for_all_that_it_joins_and_names_the_answer_that_it_follows(server: Scripted) -> None:
    answers = play_graph(
        server,
        [
            asked("a", 1),
            asked("b", 2, "a", pause_s=0.1, parent="a"),
            asked("c", 3, at_s=0.3),
            asked("d", 4, "b", "c", pause_s=0.1, parent="b"),
        ],
    )
    assert answers["b"]["due_s"] == pytest.approx(answers["a"]["ended_s"] + 0.1)
    assert answers["d"]["due_s"] == pytest.approx(answers["c"]["ended_s"] + 0.1)
    assert all(one["sent_s"] >= one["due_s"] for one in answers.values())
    named = {body["prompt"][0]: body["pentad"].get("parent") for body in server.asked}
    assert named == {1: None, 2: "cmpl-1", 3: None, 4: "cmpl-2"}
    assert len(answers["d"]["events_s"]) == 1, "a piece without text is a token all the same"


def test_what_waits_for_a_failed_request_is_never_sent_and_the_rest_goes_on(server: Scripted) -> None:
    answers = play_graph(server, [asked("a", 0), asked("b", 2, "a"), asked("c", 3)])
    assert set(answers) == {"a", "c"}
    assert "refused" in answers["a"]["error"]
    assert "error" not in answers["c"]
