"""Job server: functions of Python files that agents elsewhere have computed, each in its own process."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import pathlib
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pentad.agent.tools.process import run_process
from pentad.errors import InvalidRequest
from pentad.json_text import parse_json

_ID = re.compile(r"[A-Za-z0-9_-]{8,80}")
_MOST_BYTES = 1 << 20
_RESULT_BYTES = 1 << 20
_OVER = ("done", "failed", "cancelled")


class Jobs:
    """Jobs by id: submitted once, carried out once, and kept with their results.

    What became of a job is a file in `folder`, written whole before anybody is told. One that was under
    way when the server died is failed when it starts again, for it may have done a part.

    Args:
        functions: by name, `FILE:FUNCTION`.
        at_once: jobs that run at the same time; the others wait.
    """

    def __init__(self, functions: Mapping[str, str], folder: pathlib.Path, at_once: int) -> None:
        self._functions = functions
        self._folder = folder
        self._slots = asyncio.Semaphore(at_once)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.glob("*.json")):
            job = json.loads(file.read_text("utf-8"))
            if job["status"] not in _OVER:
                self._put({**job, "status": "failed", "error": "the job server died while it ran"})

    def submit(self, ident: str, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The job, begun if there is none of that id. Raises InvalidRequest."""
        if not _ID.fullmatch(ident):
            raise InvalidRequest(f"{ident!r:.100} is no id of a job", hint="8 to 80 letters, digits, - or _")
        found = self.get(ident)
        if found is not None:
            return found
        if name not in self._functions:
            raise InvalidRequest(f"no job {name!r:.100}", hint=f"known: {', '.join(self._functions)}")
        job = {"id": ident, "job": name, "status": "waiting"}
        self._put(job)
        self._tasks[ident] = asyncio.create_task(self._work(job, arguments))
        return job

    def get(self, ident: str) -> Mapping[str, Any] | None:
        """The job as it is now."""
        file = self._folder / f"{ident}.json"
        if not _ID.fullmatch(ident) or not file.exists():
            return None
        found: Mapping[str, Any] = json.loads(file.read_text("utf-8"))
        return found

    async def cancel(self, ident: str) -> Mapping[str, Any] | None:
        """Ends the job and all its processes, if it is not over."""
        task = self._tasks.get(ident)
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])
        return self.get(ident)

    async def close(self) -> None:
        """Ends all jobs; those are failed."""
        for task in self._tasks.values():
            task.cancel("closing")
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _work(self, job: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
        try:
            async with self._slots:
                self._put({**job, "status": "running"})
                self._put({**job, **await self._carried_out(str(job["job"]), arguments)})
        except asyncio.CancelledError as ended:
            closing = "closing" in ended.args
            status, error = ("failed", "the job server was closed") if closing else ("cancelled", "")
            self._put({**job, "status": status, "error": error})
            raise
        finally:
            self._tasks.pop(str(job["id"]), None)

    async def _carried_out(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        asked = json.dumps({"function": self._functions[name], "arguments": arguments}).encode()
        command = [sys.executable, "-m", "pentad.application.job_process", str(os.getpid())]
        output, complaint, code = await run_process(
            command, env=dict(os.environ), output_bytes=_RESULT_BYTES, data=asked
        )
        if code or output.total_bytes > _RESULT_BYTES:
            last = complaint.data.decode("utf-8", "replace").strip().splitlines()[-1:]
            why = (last or [f"it ended with code {code}"])[0] if code else "its result is too long"
            return {"status": "failed", "error": why}
        return {"status": "done", "result": output.data.decode("utf-8", "replace")}

    def _put(self, job: Mapping[str, Any]) -> None:
        file = self._folder / f"{job['id']}.json"
        beside = file.with_suffix(".new")
        with beside.open("w", encoding="utf-8") as out:
            json.dump(job, out)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(file)


def job_app(functions: Mapping[str, str], folder: pathlib.Path, *, at_once: int, key: str = "") -> Starlette:
    """The HTTP application: PUT, GET and DELETE of `/jobs/{id}`; who has not the key is refused."""
    made: list[Jobs] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        made.append(Jobs(functions, folder, at_once))
        try:
            yield
        finally:
            await made[0].close()

    async def one(request: Request) -> JSONResponse:
        jobs, ident = made[0], request.path_params["id"]
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key and not hmac.compare_digest(sent.encode(), key.encode()):
            return JSONResponse({"error": "the key is missing or wrong"}, status_code=401)
        match request.method:
            case "PUT":
                try:
                    body = parse_json((await _body(request)).decode("utf-8"))
                    if not isinstance(body, dict) or not isinstance(body.get("arguments"), dict):
                        raise InvalidRequest("a job is a JSON object with `job` and `arguments`")
                    job: Any = jobs.submit(ident, str(body.get("job")), body["arguments"])
                except (InvalidRequest, ValueError, RecursionError) as error:
                    return JSONResponse({"error": str(error)}, status_code=400)
            case "DELETE":
                job = await jobs.cancel(ident)
            case _:
                job = jobs.get(ident)
        if job is None:
            return JSONResponse({"error": f"no job {ident!r:.100}"}, status_code=404)
        return JSONResponse(job)

    routes = [Route("/jobs/{id}", one, methods=["PUT", "GET", "DELETE"])]
    return Starlette(routes=routes, lifespan=lifespan)


async def _body(request: Request) -> bytes:
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > _MOST_BYTES:
            raise InvalidRequest(f"the arguments are over {_MOST_BYTES} bytes")
    return data


def job_functions(references: Sequence[str]) -> dict[str, str]:
    """By the function's name. Raises InvalidRequest for what is not written FILE:FUNCTION, and for a twin."""
    found: dict[str, str] = {}
    for reference in references:
        path, _, name = reference.rpartition(":")
        file = pathlib.Path(path).expanduser().absolute()
        if not name or not file.is_file():
            raise InvalidRequest(f"{reference!r} is no FILE:FUNCTION", hint="e.g. ./work.py:simulate")
        if name in found:
            raise InvalidRequest(f"two functions are called {name!r}", hint="rename one")
        found[name] = f"{file}:{name}"
    return found
