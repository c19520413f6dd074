"""Several workers: how they start, are watched, replaced and stopped."""

import os
import selectors
import signal
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import GET, Certificates, Client, Command, hello, workers_option
from tests.support.load import KEPT, Load
from tests.support.processes import (
    APP,
    SLEEP,
    Start,
    ask,
    children,
    free_ports,
    is_alive,
    nothing_left,
    start,
    wait_until,
    who,
)
from tinyasgi import Config, run
from tinyasgi.process.systemd import Notifier
from tinyasgi.workers.channel import Channel
from tinyasgi.workers.spec import WorkerSpec
from tinyasgi.workers.supervisor import Supervisor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches its processes in /proc")

__all__ = ["nothing_left", "start"]

#: How often a worker is replaced or killed under load; `make trials` says 20.
TRIALS = int(os.environ.get("TRIALS", "2"))


def test_event_that_closes_another_channel() -> None:
    """Both have something to read in the same iteration."""
    supervisor = Supervisor(WorkerSpec.of("app:app", Config()), [], Notifier())
    (one, theirs), (two, others) = Channel.pair(), Channel.pair()
    calls = []

    def close(this: Channel, other: Channel) -> None:
        calls.append(this)
        this.receive()
        supervisor._selector.unregister(other)
        other.close()

    for this, other in ((one, two), (two, one)):
        supervisor._selector.register(this, selectors.EVENT_READ, partial(close, this, other))
    with theirs, others:
        theirs.send(b"x")
        others.send(b"x")
        supervisor._turn()
    assert len(calls) == 1
    for channel in (one, two):
        channel.close()
    supervisor._selector.close()


# Start.


def test_start(start: Start) -> None:
    with start("--workers", "3") as command:
        line = command.wait_for(r".*Ctrl-C.*\n")[0]
        workers = who(command.port, 3)
        assert workers.keys() == {0, 1, 2}
        assert set(workers.values()) == children(command.process.pid)
        assert command.stop() == 0
    assert f"3 workers, pid {command.process.pid}" in line
    assert command.log.count("Ctrl-C") == 1
    assert command.log.count("shutdown of") == 3
    assert "Traceback" not in command.log
    assert "Warning" not in command.log


@pytest.mark.slow
def test_web_concurrency(start: Start) -> None:
    with start(WEB_CONCURRENCY="2") as command:
        command.wait_for("2 workers")
        assert command.stop() == 0


@pytest.mark.slow
def test_load_is_even(start: Start) -> None:
    with start("--workers", "4") as command:
        shares = Counter(ask(command.port) for _ in range(400))
        assert command.stop() == 0
    assert len(shares) == 4
    assert min(shares.values()) >= 0.15 * 400
    assert max(shares.values()) <= 0.40 * 400


def test_unix_socket(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with start("--workers", "2", "--uds", "sock") as command:
        command.wait_for(r"unix:\S+/sock")
        for _ in range(2):
            with Client("sock") as client:
                assert client.response(GET).status == 200
            command.send(signal.SIGHUP)
            command.wait_for("shutdown of", 2)
        assert command.stop() == 0
    assert not os.path.exists("sock")


@pytest.mark.slow
def test_several_addresses(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--workers", "2", "--bind", "127.0.0.1:0", "--bind", "unix:sock"]
    with start(*words) as command:
        assert len(who(command.port, 2)) == 2
        with Client("sock") as client:
            assert client.response(GET).status == 200
        assert command.stop() == 0


@pytest.mark.slow
def test_tls(start: Start, tls: Certificates) -> None:
    with start("--workers", "2", "--ssl-certfile", tls.certfile) as command:
        with Client(command.port, tls.context()) as client:
            assert client.response(GET).status == 200
        assert command.stop() == 0


@pytest.mark.parametrize("first", [(), ("--workers", "2")])
def test_port_taken(first: tuple[str, ...], start: Start, tmp_path: Path) -> None:
    """Also by a server that shares it among its own workers."""
    with start(*first) as command:
        port = str(command.port)
        with Command("--workers", "2", "--port", port, "app:app", cwd=tmp_path) as second:
            assert second.wait() == 3
        assert second.log.count("\n") == 1
        assert port in second.log
        assert ask(command.port)
        assert command.stop() == 0


@pytest.mark.parametrize("words", [["--workers", "2"], ["--preload"]])
def test_nobody_takes_the_port_during_the_import(
    words: list[str], start: Start, tmp_path: Path
) -> None:
    """Linux lets two sockets have a port that set SO_REUSEADDR and don't listen yet."""
    (port,) = free_ports(1)
    text = f"""
import socket
other = socket.socket()
other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
other.bind(("127.0.0.1", {port}))
other.listen()
"""
    (tmp_path / "takes.py").write_text(text + APP)
    words = [*words, "--port", str(port)]
    with start(*words, app="takes:app", PYTHONWARNINGS="") as command:
        assert command.wait() == 3
    assert "Address already in use" in command.log


@pytest.mark.parametrize(
    ("app", "text", "code", "words"),
    [
        ("broken:app", "raise ValueError('at import')", 3, "ValueError: at import"),
        ("broken:app", "syntax error", 3, "SyntaxError"),
        ("broken:app", "import sys; sys.exit(9)", 9, "exited with code 9"),
        ("broken:app", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 3, "SIGKILL"),
        ("missing:app", "", 3, "no module named 'missing'"),
        (
            "broken:app",
            "async def app(scope, receive, send):\n  await receive()\n  raise ValueError('no db')",
            3,
            "ValueError: no db",
        ),
    ],
)
def test_first_start_that_fails(
    app: str, text: str, code: int, words: str, start: Start, tmp_path: Path
) -> None:
    """One of four tells why, and all is over.

    With warnings as a user has them: those that are told to stop while they make their event loop
    leave it to the end of the process.
    """
    (tmp_path / "broken.py").write_text(text)
    with start("--workers", "4", app=app, PYTHONWARNINGS="") as command:
        assert command.wait() == code
    assert words in command.log
    assert command.log.count("Traceback") == ("Error" in words)
    assert command.log.count("tinyasgi: error: ") == 1


@pytest.mark.slow
def test_wrong_certificate(start: Start) -> None:
    with start("--workers", "2", "--ssl-certfile", "nothing.pem") as command:
        assert command.wait() == 2
    assert command.log.count("\n") == 1
    assert "nothing.pem" in command.log


@pytest.mark.parametrize("options", [{"workers": 2}, {"reload": True}, {"worker_timeout": 3}])
def test_app_without_a_name(options: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        run(hello, **options)
    assert leaving.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert next(iter(options)) in line
    assert "module:attribute" in line


@pytest.mark.slow
def test_environment_of_the_app(start: Start, tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("# a comment\nA=1\nexport B = 'two words'\n\nC=file\n")
    (tmp_path / "shows.py").write_text(
        APP.replace("os.environ['TINYASGI_WORKER']", "[os.environ.get(n) for n in 'ABC']")
    )
    pytest.importorskip("dotenv")
    words = ["--workers", "2", "--env-file", "settings"]
    with start(*words, app="shows:app", C="environment") as command:
        assert ask(command.port).startswith("['1', 'two words', 'environment']")
        (tmp_path / "settings").write_text("A=2")
        command.send(signal.SIGHUP)
        command.wait_for("shutdown of", 2)
        assert ask(command.port).startswith("['2', None, 'environment']")
        assert command.stop() == 0


@pytest.mark.parametrize("workers", ["", "2"])
@pytest.mark.parametrize("text", [None, "no equals sign"])
def test_environment_that_is_none(
    workers: str, text: str | None, start: Any, tmp_path: Any
) -> None:
    if text is not None:
        (tmp_path / "settings").write_text(text)
    pytest.importorskip("dotenv")
    with start(*workers_option(workers), "--env-file", "settings") as command:
        assert command.wait() == 2
    assert command.log.count("\n") == 1
    assert "settings" in command.log


# Stop.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", [("--workers", "2"), ("--reload",)])
def test_stop_with_a_stream(words: tuple[str, ...], number: int, start: Start) -> None:
    words = (*words, "--timeout-graceful-shutdown", "0.5")
    with start(*words) as command, Client(command.port) as client:
        client.send(GET.replace(b" / ", b" /stream "))
        client.head()
        assert client.chunk() == b"begin"
        assert command.stop(number) == 0
    assert "shutdown of" in command.log
    assert "Traceback" not in command.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_quits(number: int, start: Start) -> None:
    words = ["--workers", "2", "--timeout-graceful-shutdown", "600"]
    with start(*words) as command, Client(command.port) as client:
        client.send(GET.replace(b" / ", b" /hang "))
        command.wait_for("hanging")
        command.send(number)
        command.wait_for("stopping")
        assert command.stop(number) == 0
    assert command.log.count("shutdown of") == 2
    assert "Traceback" not in command.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signal_to_the_whole_group(number: int, start: Start, tmp_path: Path) -> None:
    """As Ctrl-C, a terminal that closes, and systemd do it."""
    with start("--workers", "2") as command:
        before = who(command.port, 2)
        for pid in (command.process.pid, *before.values()):
            with suppress(ProcessLookupError):  # it may have heard of it
                os.kill(pid, number)
        if number == signal.SIGHUP:
            command.wait_for("all workers are replaced")
            for pid in before.values():
                command.wait_for(f"shutdown of {pid}")
            assert not set(before.values()) & set(who(command.port, 2).values())
        elif number == signal.SIGUSR1:
            assert who(command.port, 2) == before
        if number in (signal.SIGHUP, signal.SIGUSR1):
            command.send(signal.SIGTERM)
        assert command.wait() == 0
    assert "killed" not in command.log
    assert "Traceback" not in command.log


def test_signal_during_the_start(start: Start, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import sys, time\nprint('importing', file=sys.stderr, flush=True)\n" + SLEEP
    )
    with start("--workers", "2", app="slow:app") as command:
        command.wait_for("importing", 2)
        assert command.stop() == 0
    assert "Traceback" not in command.log
    assert "http://" not in command.log


def test_a_stop_refuses_new_connections_at_once(start: Start) -> None:
    with start("--workers", "2") as command, Client(command.port) as client:
        client.send(GET.replace(b" / ", b" /hang "))
        command.wait_for("hanging")
        command.send(signal.SIGTERM)

        def is_refused() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", command.port)) != 0

        wait_until(is_refused)
        assert command.stop() == 0


# Kills.


def test_killed_worker_is_replaced(start: Start) -> None:
    with start("--workers", "2") as command:
        before = who(command.port, 2)
        os.kill(before[1], signal.SIGKILL)
        command.wait_for(rf"worker 1 \(pid {before[1]}\) was killed by SIGKILL, maybe out of mem")
        command.wait_for("worker 1 .* is ready")
        after = who(command.port, 2)
        assert after[0] == before[0]
        assert after[1] != before[1]
        assert command.stop() == 0


def test_worker_that_exits_is_replaced(start: Start) -> None:
    with start("--workers", "2") as command:
        with Client(command.port) as client:
            client.send(GET.replace(b" / ", b" /exit "))
            assert client.rest() == b""
        command.wait_for(r"worker \d \(pid \d+\) exited with code 5")
        command.wait_for(r"worker \d .* is ready")
        assert len(who(command.port, 2)) == 2
        assert command.stop() == 0


def test_workers_leave_when_their_parent_dies(start: Start) -> None:
    with start("--workers", "2") as command:
        workers = who(command.port, 2)
        command.process.kill()
        command.wait()
    wait_until(lambda: not any(map(is_alive, workers.values())))
    assert command.log.count("shutdown of") == 2


def test_workers_leave_when_their_parent_dies_during_the_start(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(
        "import sys, time\nprint('importing', file=sys.stderr, flush=True)\n" + SLEEP
    )
    with start("--workers", "2", app="slow:app") as command:
        command.wait_for("importing", 2)
        workers = children(command.process.pid)
        assert len(workers) == 2
        command.process.kill()
        command.wait()
    wait_until(lambda: not any(map(is_alive, workers)))


def test_worker_that_is_told_to_stop_is_replaced_first(start: Start) -> None:
    with start("--workers", "2") as command:
        before = who(command.port, 2)
        for _ in range(3):
            os.kill(before[0], signal.SIGTERM)
            ask(command.port)  # pending signals are one
        command.wait_for("worker 0 .* is ready and has replaced")
        assert who(command.port, 2)[1] == before[1]
        command.wait_for(f"shutdown of {before[0]}")
        assert command.stop() == 0
    assert "killed" not in command.log


@pytest.mark.slow
def test_crash_loop_backs_off_and_keeps_the_rest(start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP + "if os.path.exists('broken'): raise ValueError('no')\n")
    with start("--workers", "2") as command:
        before = who(command.port, 2)
        (tmp_path / "broken").touch()
        os.kill(before[1], signal.SIGKILL)
        command.wait_for("ValueError: no", 2)
        for _ in range(20):  # what comes to the other queue, too
            assert ask(command.port) == f"0 {before[0]}"
        (tmp_path / "broken").unlink()
        command.wait_for("worker 1 .* is ready")
        assert who(command.port, 2)[0] == before[0]
        assert command.stop() == 0


# Replacements.


def test_hup(start: Start, tmp_path: Path) -> None:
    with start("--workers", "2") as command:
        before = who(command.port, 2)
        (tmp_path / "app.py").write_text(APP.replace('f"{os', 'f"1{os'))
        command.send(signal.SIGHUP)
        command.wait_for("all workers are replaced")
        for pid in before.values():
            command.wait_for(f"shutdown of {pid}")
        after = who(command.port, 2)
        assert after.keys() == {10, 11}
        assert not set(before.values()) & set(after.values())
        assert command.stop() == 0
    assert "Traceback" not in command.log


def test_hup_with_an_app_that_fails(start: Start, tmp_path: Path) -> None:
    with start("--workers", "2") as command:
        before = who(command.port, 2)
        (tmp_path / "app.py").write_text("raise ValueError('broken')")
        command.send(signal.SIGHUP)
        command.wait_for("reload failed; 2 of 2 workers keep running the old code")
        command.wait_for("ValueError: broken")
        assert who(command.port, 2) == before
        (tmp_path / "app.py").write_text(APP)
        command.send(signal.SIGHUP)
        command.wait_for("all workers are replaced")
        assert command.stop() == 0
    assert command.log.count("ValueError: broken") == 1


def test_an_idle_client_is_not_failed_by_a_replacement(start: Start) -> None:
    """It may have sent a request when the worker hears that it is to leave."""
    with start("--workers", "1", "--worker-timeout", "60") as command, Client(command.port) as idle:
        assert "connection" not in idle.response(GET).fields
        command.send(signal.SIGHUP)
        command.wait_for("is ready and has replaced")
        while "connection" not in (fields := idle.response(GET).fields):
            pass  # it has not heard yet that it is to leave
        assert fields["connection"] == "close"
        assert idle.rest() == b""
        assert command.stop() == 0


def test_more_and_fewer_workers(start: Start) -> None:
    with start("--workers", "1", "--worker-timeout", "60") as command:
        who(command.port, 1)
        command.send(signal.SIGTTIN)
        command.wait_for("worker 1 .* is ready")
        both = who(command.port, 2)
        command.send(signal.SIGTTOU)
        command.wait_for(f"shutdown of {both[1]}")
        for _ in range(20):
            assert ask(command.port) == f"0 {both[0]}"
        command.send(signal.SIGHUP)
        command.wait_for(f"shutdown of {both[0]}")
        for _ in range(20):
            assert ask(command.port).startswith("0 ")
        command.send(signal.SIGTTOU)
        command.wait_for("now running 1 worker", 2)
        assert who(command.port, 1)
        assert command.stop() == 0


@pytest.mark.slow
def test_log_files_are_opened_again(start: Start, tmp_path: Path) -> None:
    (tmp_path / "logs.py").write_text(
        "import logging\n"
        + APP.replace("    path = ", "    log.warning('asked')\n    path = ")
        + "log = logging.getLogger('app')\nlog.addHandler(logging.FileHandler('log.txt'))\n"
    )
    with start("--workers", "2", app="logs:app") as command:
        who(command.port, 2)
        os.rename(tmp_path / "log.txt", tmp_path / "old.txt")
        command.send(signal.SIGUSR1)
        wait_until(lambda: ask(command.port) and (tmp_path / "log.txt").exists())
        assert command.stop() == 0


@pytest.mark.slow
def test_many_changes_of_the_number_of_workers(start: Start) -> None:
    """Descriptors return to their number, and load is still even."""
    with start("--workers", "2") as command:
        who(command.port, 2)
        command.send(signal.SIGTTIN)
        command.wait_for("worker 2 .* is ready")
        command.send(signal.SIGTTOU)
        command.wait_for("now running 2 workers")
        wait_until(lambda: len(children(command.process.pid)) == 2)
        before = len(os.listdir(f"/proc/{command.process.pid}/fd"))
        for count in range(1, 21):
            command.send(signal.SIGTTIN)
            command.wait_for("now running 3 workers", count + 1)
            command.send(signal.SIGTTOU)
            command.wait_for("now running 2 workers", count + 1)
        wait_until(lambda: len(children(command.process.pid)) == 2)
        assert len(os.listdir(f"/proc/{command.process.pid}/fd")) == before
        command.send(signal.SIGTTIN)
        command.wait_for("worker 2 .* is ready", 2)
        shares = Counter(ask(command.port) for _ in range(300))
        assert len(shares) == 3
        assert min(shares.values()) >= 0.15 * 300
        assert command.stop() == 0


@pytest.mark.slow
def test_more_workers_on_a_shared_socket(start: Start, tmp_path: Path) -> None:
    """None of them blocks in `accept`."""
    with start("--workers", "2", "--uds", "sock") as command:
        command.wait_for("2 workers")
        command.send(signal.SIGTTIN)
        command.wait_for("worker 2 .* is ready")
        for _ in range(30):
            with Client(str(tmp_path / "sock")) as client:
                assert client.response(GET).status == 200
        assert command.stop() == 0
    assert "killed" not in command.log


def test_stop_is_read_together_with_the_end_of_the_start(start: Start, tmp_path: Path) -> None:
    text = APP.replace(
        "        await receive()\n", "        say('starting')\n        await receive()\n", 1
    )
    (tmp_path / "app.py").write_text("import time; time.sleep(0.5)\n" + text)
    with start("--workers", "2", "--log-level", "debug") as command:
        command.wait_for("worker 1 .* starts")
        command.send(signal.SIGSTOP)
        command.wait_for("starting", 2)
        command.send(signal.SIGTERM)
        command.send(signal.SIGCONT)
        assert command.wait() == 0
    assert "Traceback" not in command.log


@pytest.mark.parametrize("words", [["--workers", "1"], ["--preload"]])
def test_directory_is_resolved_at_each_start(
    words: list[str], start: Start, tmp_path: Path
) -> None:
    """As after a deployment that switches a link."""
    for number in (1, 2):
        (tmp_path / f"release{number}").mkdir()
        text = APP.replace('f"{os', f'f"{number}{{os')
        (tmp_path / f"release{number}" / "app.py").write_text(text)
    link = tmp_path / "current"
    link.symlink_to("release1")
    (tmp_path / "script.py").write_text(
        "import os, sys\nos.chdir('current')\nos.environ['PWD'] = os.path.abspath('../current')\n"
        f"command = [sys.executable, '-m', 'tinyasgi', '--port', '0', *{words}, 'app:app']\n"
        "os.execv(sys.executable, command)\n"
    )
    with start(script="script.py") as command:
        assert who(command.port, 1).keys() == {10}
        link.unlink()
        link.symlink_to("release2")
        command.send(signal.SIGHUP)
        command.wait_for("all workers are replaced")
        command.wait_for("shutdown of")
        assert who(command.port, 1).keys() == {20}
        assert command.stop() == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--limit-max-requests", "3"), "it received SIGTERM or reached --limit-max-requests"),
        (("--worker-lifetime", "0.5"), "it has run for 0.5 s"),
        (("--worker-max-rss", "1"), r"it uses \d+ MiB of memory"),
    ],
)
def test_worker_that_has_had_its_time(words: tuple[str, ...], why: str, start: Start) -> None:
    with start(*words) as command:
        before = who(command.port, 1)
        for _ in range(3):
            ask(command.port)
        command.wait_for(rf"replacing worker 0 \(pid {before[0]}\): {why}")
        command.wait_for("worker 0 .* is ready and has replaced")
        command.wait_for(f"shutdown of {before[0]}")
        assert ask(command.port).startswith("0 ")
        assert command.stop() == 0


@pytest.mark.parametrize("seconds", ["2592000", "1000000000"])
def test_times_that_no_wait_can_have(seconds: str, start: Start) -> None:
    """A month, and the most that an option takes: epoll waits for at most 24 days."""
    words = ["--worker-lifetime", seconds, "--worker-timeout", seconds]
    with start(*words, "--timeout-graceful-shutdown", seconds) as command:
        assert who(command.port, 1)
        assert command.stop() == 0
    assert "Traceback" not in command.log


# Under load.


@pytest.mark.slow
def test_nothing_fails_when_workers_are_replaced(start: Start) -> None:
    with start("--workers", "2") as command, Load(command.port) as load:
        for count in range(1, TRIALS + 1):
            command.send(signal.SIGHUP)
            command.wait_for("all workers are replaced", count)
        assert command.process.poll() is None
    assert load.failures == []
    assert len(load.answers) >= 2 * TRIALS


@pytest.mark.slow
def test_nothing_fails_when_workers_have_had_their_requests(start: Start) -> None:
    words = ["--workers", "2", "--limit-max-requests", "200", "--limit-max-requests-jitter", "50"]
    with start(*words) as command, Load(command.port) as load:
        command.wait_for("is ready and has replaced", 2 * TRIALS)
    assert load.failures == []


@pytest.mark.slow
def test_only_what_was_with_a_killed_worker_fails(start: Start) -> None:
    with start("--workers", "2") as command:
        workers = who(command.port, 2)
        kills = []
        with Load(command.port) as load:
            for count in range(1, TRIALS + 1):
                # It is to have lived for a second: else the next one would be made to wait.
                wait_until(lambda seen=load.count: load.count > seen + 1300)
                pids = who(command.port, 2)
                before_kill = time.monotonic()
                os.kill(pids[count % 2], signal.SIGKILL)
                kills.append((before_kill, time.monotonic()))
                command.wait_for(r"worker \d .* is ready", count)
        assert who(command.port, 2).keys() == workers.keys()
    # What the kernel had given to the worker is lost with it; what waited in its queue is not.
    for each in load.failures:
        if each.kind == "fresh":
            assert any(each.begun <= after and before <= each.ended for before, after in kills)
    assert sum(each.kind == "kept" for each in load.failures) <= TRIALS * KEPT
