"""Coding programs: each edits one file in its own tool loop, as a scripted model tells it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from pentad.model.backends.completion_limit import answer_room
from pentad.testing.backends import Item
from pentad.types import Request
from real_clients.case import Case, Install, Seen, call, tool_results

ASK = "Replace red by blue in colours.txt."
BEFORE = {"work/colours.txt": "green\nred\n"}
AFTER = "green\nblue\n"
BIN = "{home}/node_modules/.bin/"
CONTEXT = 32_768
PATCH = """apply_patch <<'EOF'
*** Begin Patch
*** Update File: colours.txt
@@
-red
+blue
*** End Patch
EOF
"""


def _fit(request: Request, context: int = CONTEXT) -> None:
    """The product's own rule of what fits, for a prompt of four characters a token."""
    chars = sum(len(message.content) for message in request.messages or ())
    chars += sum(len(json.dumps([t.name, t.description, t.parameters])) for t in request.tools)
    answer_room(request, chars // 4, context=context, model="scripted", at_s=0.0)


def _claude(request: Request) -> list[Item]:
    """Reads, edits, and says so; anything asked without tools is a title."""
    if "Edit" not in {tool.name for tool in request.tools}:
        return ["Colours"]
    _fit(request)
    path = _folder(request) + "/colours.txt"
    done = len(tool_results(request))
    if done == 0:
        return ["I read it first.", call("Read", json.dumps({"file_path": path}))]
    if done == 1:
        edit = {"file_path": path, "old_string": "red", "new_string": "blue", "replace_all": False}
        return [call("Edit", json.dumps(edit))]
    return ["It is blue now."]


def _folder(request: Request) -> str:
    text = "\n".join(message.content for message in request.messages or ())
    found = re.search(r"[Ww]orking directory: (\S+)", text)
    assert found, "the program does not say where it works"
    return found[1]


def _edited_by_claude(seen: Seen) -> None:
    assert seen.files["colours.txt"] == AFTER, seen.said
    assert seen.said["result"] == "It is blue now.", seen.said
    assert not seen.said["is_error"], seen.said
    asked = [request.sampling.max_tokens for request in seen.requests if request.tools]
    assert min(limit or 0 for limit in asked) > CONTEXT // 2, (
        f"it asks for {asked}: less than by its own limits"
    )


def _codex(request: Request) -> list[Item]:
    """Edits by a patch, which this program applies itself where its shell tool is asked to."""
    _fit(request)
    if not tool_results(request):
        return ["I edit it.", call("exec_command", json.dumps({"cmd": PATCH}))]
    return ["It is blue now."]


def _edited_by_aider(seen: Seen) -> None:
    assert seen.files["colours.txt"] == AFTER, seen.said
    assert len(seen.requests) == 1, "it asked again, so an answer was not what it takes"


def _edited_by_codex(seen: Seen) -> None:
    assert seen.files["colours.txt"] == AFTER, seen.said
    assert "It is blue now." in str(seen.said), seen.said


def _too_long(request: Request) -> list[Item]:
    _fit(request, 4096)
    return ["It fits."]


def _said_to_be_too_long(*words: str) -> Callable[[Seen], None]:
    """A check that the program knew why it was refused, and did not ask again and again."""

    def check(seen: Seen) -> None:
        said = str(seen.said)
        assert all(word in said for word in words), said
        assert len(seen.requests) == 1, f"it asked {len(seen.requests)} times"

    return check


SEARCH_REPLACE = """colours.txt
```
<<<<<<< SEARCH
red
=======
blue
>>>>>>> REPLACE
```
"""
CODEX_SETTINGS = """
model = "scripted"
model_provider = "pentad"

[model_providers.pentad]
name = "Pentad"
base_url = "{url}/v1"
wire_api = "responses"
"""

ENDED_ANYHOW = ("sh", "-c", '"$0" "$@" 2>&1 || true')
CLAUDE = (
    *(BIN + "claude", "-p", ASK, "--model", "scripted"),
    *("--permission-mode", "acceptEdits", "--output-format", "json"),
)
CLAUDE_INSTALL = Install(
    name="claude-code", npm=("@anthropic-ai/claude-code",), version_of="@anthropic-ai/claude-code"
)
CLAUDE_ENVIRONMENT = {
    "ANTHROPIC_BASE_URL": "{url}",
    "ANTHROPIC_AUTH_TOKEN": "unused",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
}
CODEX = (BIN + "codex", "exec", "--skip-git-repo-check", "--sandbox", "workspace-write", ASK)
CODEX_INSTALL = Install(name="codex", npm=("@openai/codex",), version_of="@openai/codex")
CODEX_FILES = BEFORE | {"home/.codex/config.toml": CODEX_SETTINGS}

CASES = (
    Case(
        name="claude-code",
        install=CLAUDE_INSTALL,
        did="print mode with its own limits: reads a file, edits it, says so",
        command=CLAUDE,
        environment=CLAUDE_ENVIRONMENT,
        files=BEFORE,
        turns=[_claude],
        check=_edited_by_claude,
    ),
    Case(
        name="claude-code-overflow",
        install=CLAUDE_INSTALL,
        did="a context too small for its prompt: asks once, and says how much too long the prompt is",
        command=(*ENDED_ANYHOW, *CLAUDE),
        environment=CLAUDE_ENVIRONMENT,
        turns=[_too_long],
        check=_said_to_be_too_long("Prompt is too long", "limit 4096", "prompt_too_long"),
    ),
    Case(
        name="codex",
        install=CODEX_INSTALL,
        did="exec: edits a file in its tool loop over Responses, says so",
        command=CODEX,
        files=CODEX_FILES,
        turns=[_codex],
        check=_edited_by_codex,
    ),
    Case(
        name="codex-overflow",
        install=CODEX_INSTALL,
        did="a context too small for its prompt: asks once, and says that it ran out of room",
        command=(*ENDED_ANYHOW, *CODEX),
        files=CODEX_FILES,
        turns=[_too_long],
        check=_said_to_be_too_long("ran out of room in the model's context window"),
    ),
    Case(
        name="aider",
        install=Install(name="aider", pip=("aider-chat",), version_of="aider-chat"),
        did="edits a file by a streamed search and replace block",
        command=(
            *("{home}/bin/aider", "--model", "openai/scripted", "--message", ASK, "--yes-always", "--no-git"),
            *(
                "--edit-format",
                "diff",
                "--no-show-model-warnings",
                "--no-check-update",
                "--analytics-disable",
            ),
            "colours.txt",
        ),
        environment={"OPENAI_API_BASE": "{url}/v1", "OPENAI_API_KEY": "unused"},
        files=BEFORE,
        turns=[["I change one word.\n\n", *SEARCH_REPLACE.splitlines(keepends=True)]],
        check=_edited_by_aider,
    ),
)
