"""Escapes from the sandbox, each tried for real: none reaches what is outside, and every limit holds.

What an escape would reach is reached by the same code outside, so that a test cannot pass because its
attack is lame.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agent_support import run
from pentad.agent.tools.sandbox import seccomp
from pentad.agent.tools.sandbox.base import Finished, Limits, Snippet
from pentad.agent.tools.sandbox.bubblewrap import Bubblewrap
from pentad.agent.tools.sandbox.cgroup import cgroup
from pentad.agent.tools.sandbox.monty import Monty
from sandbox_support import SMALL, STARTERS, as_we_are, present, python, said, shell

pytestmark = pytest.mark.thorough

SECRET = "canary-9f1c"
Start = Callable[..., Finished]


@pytest.fixture(params=STARTERS)
def start(request: pytest.FixtureRequest) -> Start:
    return STARTERS[request.param]


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A file that everybody may read and write, outside; and the secret in our environment."""
    monkeypatch.setenv("PENTAD_CANARY", SECRET)
    for parent in ("/var/tmp", tempfile.gettempdir()):
        if os.access(parent, os.W_OK):
            break
    folder = pathlib.Path(tempfile.mkdtemp(dir=parent))
    folder.chmod(0o777)
    file = folder / "canary"
    file.write_text(SECRET)
    file.chmod(0o666)
    yield file
    assert file.read_text() == SECRET, "it was overwritten"
    assert [each.name for each in folder.iterdir()] == ["canary"], "something was put beside it"
    file.unlink()
    folder.rmdir()


def outside(code: str) -> str:
    """What the same code says when nothing holds it."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr


READS = {
    "a path": "print(open('{file}').read())",
    "a way up": "print(open('../' * 20 + '{file}').read())",
    "a walk over dunders": """
for kind in ().__class__.__base__.__subclasses__():
    if kind.__name__ in ("FileLoader", "SourceFileLoader"):
        print(kind.get_data(kind("x", "{file}"), "{file}").decode())
    if kind.__name__ == "_wrap_close":
        print(kind.__init__.__globals__["popen"]("cat {file}").read())
""",
    "ctypes": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.open(b"{file}", 0)
text = ctypes.create_string_buffer(100)
libc.read(fd, text, 100)
print(text.value.decode(), fd)
""",
    "a link out": """
import os
link = "/tmp/link-%d" % os.getpid()
os.symlink("{file}", link)
try:
    print(open(link).read())
finally:
    os.unlink(link)
""",
    "a subprocess": "import subprocess\nprint(subprocess.getoutput('cat {file}'))",
    "the roots of other processes": """
import glob
for root in glob.glob("/proc/[0-9]*/root") + glob.glob("/proc/[0-9]*/cwd"):
    try:
        print(open(root + "{file}").read())
    except OSError as error:
        print(error.strerror)
""",
    "environments of processes": """
import glob, os
print([value for name, value in os.environ.items() if "CANARY" in name])
for each in glob.glob("/proc/[0-9]*/environ"):
    try:
        print([part for part in open(each, "rb").read().split(bytes(1)) if b"CANARY" in part])
    except OSError as error:
        print(error.strerror)
""",
    "descriptors left open": """
import os
for fd in range(3, 1024):
    try:
        print(fd, os.readlink("/proc/self/fd/%d" % fd), os.pread(fd, 100, 0))
    except OSError:
        pass
print(open('{file}').read())
""",
    "a file of the kernel": "print(open('/proc/self/root{file}').read())",
}


@pytest.mark.parametrize("attack", READS)
def test_no_code_reads_what_is_outside(start: Start, attack: str, canary: pathlib.Path) -> None:
    code = READS[attack].replace("{file}", str(canary))
    assert SECRET in outside(code), "the attack is lame"
    assert SECRET not in said(start(python(code)))


WRITES = {
    "over the file": "open('{file}', 'w').write('x')",
    "beside it": "open('{folder}/beside', 'w').write('x')",
    "through a link": """
import os
os.symlink("{folder}", "/tmp/out")
open("/tmp/out/beside", "w").write("x")
""",
    "to programs": "open('/usr/bin/pentad-canary', 'w').write('x')",
    "to settings": "open('/etc/pentad-canary', 'w').write('x')",
    "to devices": "open('/dev/pentad-canary', 'w').write('x')",
    "to the root": "open('/pentad-canary', 'w').write('x')",
    "to the kernel's settings": "open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x')",
    "to what answers requests": "open('/proc/sysrq-trigger', 'w').write('h')",
    "over its own code": "open('/run/code', 'w').write('x')",
}


@pytest.mark.parametrize("attack", WRITES)
def test_no_code_writes_what_is_outside(start: Start, attack: str, canary: pathlib.Path) -> None:
    code = WRITES[attack].replace("{file}", str(canary)).replace("{folder}", str(canary.parent))
    done = start(python(code))
    assert done.code == 1
    assert any(word in said(done) for word in ("Read-only", "Permission denied", "No such file"))
    for place in ("/usr/bin", "/etc", "/dev", "/"):
        assert not os.path.exists(f"{place}/pentad-canary")


CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, *arguments):
    ctypes.set_errno(0)
    found = libc.syscall(*arguments)
    print(name, "done" if found >= 0 else os.strerror(ctypes.get_errno()))
NEWUSER, NEWNS = 0x10000000, 0x00020000
n = {numbers}
tried("unshare", n["unshare"], NEWUSER | NEWNS)
tried("mount", n["mount"], b"none", b"/tmp", b"tmpfs", 0, 0)
tried("setns", n["setns"], 0, 0)
tried("ptrace", n["ptrace"], 16, 1, 0, 0)
tried("keyctl", n["keyctl"], 0, 0, 0)
tried("bpf", n["bpf"], 0, 0, 0)
tried("io_uring", n["io_uring_setup"], 1, 0)
tried("handle", n["open_by_handle_at"], -100, 0, 0)
tried("memory", n["process_vm_readv"], 1, 0, 0, 0, 0, 0)
tried("chroot", n["chroot"], b"/tmp")
tried("module", n["init_module"], 0, 0, b"")
tried("clone", n["clone"], NEWUSER | 17, 0, 0, 0, 0)
"""


def test_calls_that_reach_around_namespaces_are_refused(start: Start) -> None:
    machine = seccomp._MACHINES[os.uname().machine]
    numbers = {name: each[machine.place] for name, each in seccomp._DENIED.items()} | {"clone": machine.clone}
    lines = said(start(python(CALLS.replace("{numbers}", repr(numbers))))).splitlines()
    assert len(lines) == 12
    assert {line.partition(" ")[2] for line in lines} == {"Operation not permitted"}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="other processors have one ABI")
def test_a_call_of_another_abi_ends_the_process(start: Start) -> None:
    code = "import ctypes\nprint(ctypes.CDLL(None).syscall(0x40000000 + 39))"
    assert "\n" in outside(code)
    assert (done := start(python(code))).code == 128 + 31, said(done)


NETWORK = """
import socket
def tried(name, work):
    try:
        print(name, "reached", work())
    except OSError as error:
        print(name, error.strerror)
tried("tcp", lambda: socket.create_connection(("127.0.0.1", {port}), 2))
tried("tcp6", lambda: socket.create_connection(("::1", {port}), 2))
tried("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", {port})))
tried("name", lambda: socket.getaddrinfo("localhost.localdomain.example", 80))
tried("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0pentad-{port}"))
tried("path", lambda: socket.socket(socket.AF_UNIX).connect("{path}"))
tried("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).bind((0, 0)))
tried("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
tried("host", lambda: socket.socket(40, socket.SOCK_STREAM).connect((2, 1024)))
tried("kernel", lambda: socket.socket(38, socket.SOCK_SEQPACKET))
"""


def test_no_code_reaches_a_network(start: Start) -> None:
    heard: list[str] = []

    def listen(listener: socket.socket) -> None:
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return
            heard.append(str(listener))

    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        tcp = socket.create_server(("127.0.0.1", 0))
        port, path = tcp.getsockname()[1], f"{folder}/socket"
        listeners = [tcp]
        for address in (f"\0pentad-{port}", path):
            listeners.append(socket.socket(socket.AF_UNIX))
            listeners[-1].bind(address)
            listeners[-1].listen()
        os.chmod(path, 0o777)
        for each in listeners:
            threading.Thread(target=listen, args=(each,), daemon=True).start()
        code = NETWORK.replace("{port}", str(port)).replace("{path}", path)
        free = outside(code)
        try:
            for name in ("tcp", "udp", "abstract", "path"):
                assert f"\n{name} reached" in f"\n{free}", "the attack is lame"
            time.sleep(0.1)
            heard.clear()
            lines = said(start(python(code))).splitlines()
            assert len(lines) == 10
            assert not any("reached" in line for line in lines), lines
            time.sleep(0.1)
            assert heard == []
        finally:
            for each in listeners:
                each.shutdown(socket.SHUT_RDWR)
                each.close()


def test_a_network_is_given_only_when_it_is_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\nprint('reached')"
        assert "reached" not in said(as_we_are(python(code)))
        assert "reached" in said(as_we_are(python(code, network=True)))


BOMB = """
import os, time
made = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError as error:
    print(made, error.strerror)
"""


def test_a_fork_bomb_is_bounded_and_leaves_nothing(start: Start) -> None:
    before = _processes()
    made, _, why = said(start(python(BOMB))).strip().partition(" ")
    assert 0 < int(made) < SMALL.processes
    assert why == "Resource temporarily unavailable"
    assert _processes() <= before


def test_threads_count_as_processes(start: Start) -> None:
    code = """
import threading, time
try:
    for n in range(99):
        threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
except RuntimeError:
    print(n)
"""
    assert int(said(start(python(code)))) < SMALL.processes


def test_what_daemonizes_ends_with_the_call(start: Start) -> None:
    before = _processes()
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    os.close(1)
    os.close(2)
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
"""
    began = time.monotonic()
    assert start(python(code)).code == 0
    assert time.monotonic() - began < 20
    assert _processes() <= before


def _processes() -> int:
    """Processes that sandboxes run as, or that run one."""
    found = 0
    for each in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            found += b"/run/code" in (each / "cmdline").read_bytes()
        except OSError:
            continue
    return found


def test_ten_gigabytes_are_refused(start: Start) -> None:
    done = start(python("x = bytearray(10 * 1024 ** 3)\nprint('has it')"))
    assert done.code == 1
    assert "MemoryError" in said(done)
    assert "has it" not in said(done)


def test_many_processes_together_have_no_more_memory() -> None:
    async def grouped() -> bool:
        async with cgroup(1 << 28, 10) as joins:
            return bool(joins)

    if not run(grouped()):
        pytest.skip("no control group may be made here")
    limits = Limits(memory_bytes=128 << 20, disk_bytes=1 << 20)
    hold = "import time\nx = bytearray(b'x') * (90 << 20)\nprint('has it', flush=True)\ntime.sleep(1)"
    code = f"""
import subprocess, sys
for each in [subprocess.Popen([sys.executable, "-c", {hold!r}]) for _ in range(8)]:
    each.wait()
"""
    assert said(as_we_are(python(code), limits)).count("has it") < 3


@pytest.mark.parametrize("place", ["/tmp", "/work", "/dev/shm"])
def test_what_is_written_is_bounded(start: Start, place: str) -> None:
    code = f"""
written = 0
try:
    for n in range(100):
        with open("{place}/%d" % n, "wb", buffering=0) as file:
            for _ in range(4):
                written += file.write(bytes(1 << 20))
except OSError as error:
    print(written, error.strerror)
"""
    written, _, why = said(start(python(code))).strip().partition(" ")
    assert int(written) <= SMALL.disk_bytes
    assert why == "No space left on device"


def test_one_file_is_bounded_in_a_folder_too(tmp_path: pathlib.Path) -> None:
    folder = pathlib.Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
        as_we_are(shell("head -c 20000000 /dev/zero > big", folder=str(folder)))
        assert 0 < (folder / "big").stat().st_size <= SMALL.disk_bytes
    finally:
        (folder / "big").unlink(missing_ok=True)
        folder.rmdir()


def test_limits_cannot_be_lifted_and_rights_not_regained(start: Start) -> None:
    code = """
import os, resource
def tried(name, work):
    try:
        work()
        print(name, "done")
    except (OSError, ValueError) as error:
        print(name, "refused")
for name in ("AS", "NPROC", "FSIZE", "NOFILE", "CPU"):
    tried(name, lambda: resource.setrlimit(getattr(resource, "RLIMIT_" + name), (1 << 40, 1 << 40)))
tried("root", lambda: os.setuid(0))
tried("groups", lambda: os.setgroups([0]))
tried("kill", lambda: os.kill({us}, 9))
for line in open("/proc/self/status"):
    if line.startswith(("CapPrm", "CapEff", "NoNewPrivs")):
        print(line.split()[1])
""".replace("{us}", str(os.getpid()))
    lines = said(start(python(code))).splitlines()
    assert [line.partition(" ")[2] for line in lines[:-3]] == ["refused"] * 8
    assert [int(line, 16) for line in lines[-3:]] == [0, 0, 1]


def test_programs_that_give_rights_give_none(start: Start) -> None:
    lent = said(start(shell("find /usr/bin -perm -4000 | head -1; su -c id root </dev/null; mount")))
    assert "uid=0" not in lent


def test_the_terminal_cannot_be_typed_into(start: Start) -> None:
    code = """
import fcntl
for fd in (0, 1, 2):
    try:
        fcntl.ioctl(fd, 0x5412, b"x")
    except OSError as error:
        print(error.strerror)
"""
    assert said(start(python(code))).split("\n")[:-1] == ["Operation not permitted"] * 3


def test_output_without_end_is_cut_and_the_time_is_kept(start: Start) -> None:
    done = start(python("import sys\nwhile True: sys.stdout.write('x' * 65536)"), Limits(cpu_s=1))
    assert done.code in (128 + 9, 128 + 24)
    assert done.output.total_bytes > 1 << 20
    assert len(done.output.data) <= 16_384 + 4


def test_what_is_printed_arrives_byte_by_byte(start: Start) -> None:
    done = start(python(r"import sys; sys.stdout.buffer.write(b'a\x00\xff\xed\xa0\x80\x1b[31m')"))
    assert done.output.data == b"a\x00\xff\xed\xa0\x80\x1b[31m"


def test_code_is_nobody_that_there_is(start: Start) -> None:
    users = [said(start(shell("id -u"))).strip() for _ in range(2)]
    if os.geteuid() == 0 and start is as_we_are:
        assert users[0] != users[1]
        assert min(map(int, users)) >= 1 << 30
    else:
        assert users == ["1000", "1000"]


MONTY = {
    "a file": "print(open('{file}').read())",
    "a path": "from pathlib import Path\nprint(Path('{file}').read_text())",
    "the environment": "import os\nprint(os.environ)",
    "a variable": "import os\nprint(os.getenv('PENTAD_CANARY'))",
    "a process": "import subprocess\nprint(subprocess.run(['cat', '{file}']))",
    "ctypes": "import ctypes\nprint(ctypes.CDLL(None))",
    "a socket": "import socket\nprint(socket.socket())",
    "a walk over dunders": "print(().__class__.__base__.__subclasses__())",
    "much memory": "x = []\nwhile True: x.append('a' * 1000)",
    "deep recursion": "def f(n): return f(n + 1)\nf(0)",
    "compiled code": "print(eval(\"open('{file}').read()\"))",
}


@pytest.mark.parametrize("attack", MONTY)
def test_snippets_in_monty_reach_nothing(attack: str, canary: pathlib.Path) -> None:
    box = present(Monty(memory_bytes=16 << 20))
    done = run(box.run(python(MONTY[attack].replace("{file}", str(canary)))))
    assert done.code == 1
    assert SECRET not in said(done)


def test_a_snippet_in_monty_ends_in_time() -> None:
    box = present(Monty(seconds=0.2))
    assert b"time limit" in run(box.run(python("while True: pass"))).errors.data


def test_the_filter_is_known_for_both_processors_and_refuses_the_others() -> None:
    for machine in ("x86_64", "aarch64"):
        program = seccomp.program(network=False, machine=machine)
        assert program is not None
        assert len(program) % 8 == 0
    assert seccomp.program(network=False, machine="riscv64") is None


def test_a_deadline_ends_what_ignores_signals() -> None:
    box = present(Bubblewrap(memory_bytes=256 << 20, processes=16))
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('on')\ntime.sleep(60)"

    async def check() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await box.run(Snippet(language="python", text=code, key="k"))

    before = _processes()
    run(check())
    assert _processes() <= before
