"""Uploads: kept by id for their tenant, within limits, and named by messages of all dialects."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from gateway_app import call, scripted_app
from pentad.application.gateway.file_store import FileStore
from pentad.content import Media
from pentad.errors import NotFound, TooLarge
from pentad.execution.backend import Capabilities

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
CAN = Capabilities(model="scripted", context_length=8192, media=frozenset({"image", "file"}))


def key(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}-secret"}


def upload(
    app: Any,
    data: bytes = PNG,
    name: str = "a.png",
    type: str = "image/png",
    headers: dict[str, str] | None = None,
    **fields: str,
) -> Any:
    made = httpx2.Request("POST", "http://x/", files={"file": (name, data, type)}, data=fields)
    sent = {"content-type": made.headers["content-type"], **(headers or {})}
    return call(app, "POST", "/v1/files", raw=made.read(), headers=sent)


def test_a_file_is_uploaded_listed_read_and_deleted() -> None:
    app, _ = scripted_app()
    first = upload(app, purpose="vision").json()
    assert (first["object"], first["bytes"], first["filename"]) == ("file", len(PNG), "a.png")
    assert (first["purpose"], first["mime_type"], first["status"]) == ("vision", "image/png", "processed")
    second = upload(app, b"a,b", "../../etc/b.csv", "text/csv").json()
    assert second["filename"] == "b.csv"
    listed = call(app, "GET", "/v1/files").json()
    assert [one["id"] for one in listed["data"]] == [second["id"], first["id"]]
    one = f"/v1/files/{first['id']}"
    assert call(app, "GET", one).json() == first
    content = call(app, "GET", f"{one}/content")
    assert content.content == PNG
    assert content.headers["content-type"] == "application/octet-stream"
    assert content.headers["content-disposition"] == "attachment"
    assert call(app, "DELETE", one).json() == {
        "id": first["id"],
        "object": "file",
        "type": "file_deleted",
        "deleted": True,
    }
    assert call(app, "GET", one).status_code == 404
    assert call(app, "DELETE", one).status_code == 404


def test_messages_of_every_dialect_name_an_upload() -> None:
    app, backend = scripted_app(capabilities=CAN)
    id = upload(app).json()["id"]
    text = upload(app, "Grüße".encode(), "n.txt", "text/plain").json()["id"]
    chats = {
        "/v1/responses": {
            "input": [{"role": "user", "content": [{"type": "input_image", "file_id": id}]}],
        },
        "/v1/messages": {
            "max_tokens": 9,
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image", "source": {"type": "file", "file_id": id}}],
                }
            ],
        },
    }
    for path, body in chats.items():
        answer = call(app, "POST", path, body={"model": "scripted", **body})
        assert answer.status_code == 200, answer.text
        (part,) = backend.requests[-1].media
        assert isinstance(part, Media)
        assert (part.data, part.media_type, part.name) == (PNG, "image/png", "a.png")
    file = {"type": "file", "file": {"file_id": text}}
    body = {"model": "scripted", "messages": [{"role": "user", "content": [file]}]}
    assert call(app, "POST", "/v1/chat/completions", body=body).status_code == 200
    (message,) = backend.requests[-1].messages or ()
    assert message.content == "<document>\n<title>n.txt</title>\nGrüße\n</document>"


def test_tenants_do_not_see_each_others_files() -> None:
    app, _ = scripted_app(capabilities=CAN, api_keys=("a:a-secret", "b:b-secret"))
    id = upload(app, headers=key("a")).json()["id"]
    assert call(app, "GET", "/v1/files", headers=key("b")).json()["data"] == []
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert call(app, method, f"/v1/files/{id}{path}", headers=key("b")).status_code == 404
    image = {"type": "input_image", "file_id": id}
    body = {"model": "scripted", "input": [{"role": "user", "content": [image]}]}
    assert call(app, "POST", "/v1/responses", body=body, headers=key("b")).status_code == 400
    assert call(app, "POST", "/v1/responses", body=body, headers=key("a")).status_code == 200


def test_a_store_that_is_full_refuses_and_says_what_to_do() -> None:
    app, _ = scripted_app(file_store_bytes=3000)
    id = upload(app, PNG + bytes(1900)).json()["id"]
    refused = upload(app, PNG + bytes(1900))
    assert refused.status_code == 413
    assert "delete files, or raise --file-store-bytes" in refused.json()["error"]["message"]
    call(app, "DELETE", f"/v1/files/{id}")
    assert upload(app, PNG + bytes(1900)).status_code == 200
    store = FileStore(10_000, share=0.5)
    store.put("a", "n", "", "p", bytes(4000))
    with pytest.raises(TooLarge, match="room for 0"):
        store.put("a", "n", "", "p", bytes(4000))
    kept = store.put("b", "n", "", "p", bytes(4000))
    with pytest.raises(NotFound):
        store.get("a", kept.id)


@pytest.mark.parametrize(
    ("raw", "type", "words"),
    [
        (b"{}", "application/json", "send multipart/form-data"),
        (b"--x\r\n", "multipart/form-data", "boundary"),
        (b"garbage", "multipart/form-data; boundary=x", "the form"),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            "send it as the field `file`",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + bytes(100_000) + b"\r\n--x--\r\n",
            "multipart/form-data; boundary=x",
            "cannot be read",
        ),
    ],
)
def test_what_is_no_form_with_a_file_is_a_400(raw: bytes, type: str, words: str) -> None:
    app, _ = scripted_app()
    refused = call(app, "POST", "/v1/files", raw=raw, headers={"content-type": type})
    assert refused.status_code == 400
    assert words in str(refused.json()["error"])


def test_anthropics_clients_find_their_fields() -> None:
    app, _ = scripted_app()
    shown = upload(app, headers={"anthropic-version": "2023-06-01"}).json()
    assert (shown["type"], shown["size_bytes"], shown["mime_type"]) == ("file", len(PNG), "image/png")
    assert shown["created_at"].endswith("+00:00")
    missing = call(app, "GET", "/v1/files/f", headers={"anthropic-version": "2023-06-01"})
    assert (missing.status_code, missing.json()["type"]) == (404, "error")
