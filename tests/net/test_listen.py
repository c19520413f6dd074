"""Listening sockets and their addresses."""

import errno
import os
import socket
import stat
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import GET, LOOPS, PATIENCE, Client, hello, in_loop, reply
from tests.support.processes import free_ports
from tinyasgi import Config, Server
from tinyasgi.net import listen
from tinyasgi.net.listen import (
    ListenError,
    bind,
    clone,
    close,
    has_own_queue,
    remove_files,
    socket_files,
)
from tinyasgi.testing import serve

posix = pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A short path for a unix socket, in a temporary directory."""
    monkeypatch.chdir(tmp_path)
    return "server.sock"


# TCP.


def test_port_zero_is_a_free_port() -> None:
    with serve(hello) as one, serve(hello) as other:
        assert 0 != one.port != other.port != 0
        assert one.url == f"http://127.0.0.1:{one.port}"
        for server in (one, other):
            with Client(server) as client:
                assert client.response(GET).body == b"hello"


def test_name_with_several_addresses() -> None:
    with serve(hello, host="localhost") as server:
        assert all(address.endswith(f":{server.port}") for address in server.server.addresses)
        with socket.create_connection(("localhost", server.port)) as sock:
            assert sock.getpeername()[1] == server.port


def test_unavailable_addresses_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example if IPv6 is switched off. At least one address must be available."""
    lacking: Any = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))  # RFC 5737
    unknown = (socket.AF_APPLETALK, socket.SOCK_STREAM, 6, "", ("::1", 0))
    here = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    found = [unknown, lacking, here, lacking]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    (sock,) = bind(Config(host="localhost", port=0))
    with sock:
        assert sock.getsockname()[0] == "127.0.0.1"
        assert sock.proto == socket.IPPROTO_TCP  # asyncio sets TCP_NODELAY only then
    found.remove(here)
    with pytest.raises(ListenError, match="can't listen on localhost:0: "):
        bind(Config(host="localhost", port=0))


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_dual_stack() -> None:
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["server"])
        await reply(send)

    with serve(app, host="::", lifespan="off") as server:
        assert server.url == f"http://[::]:{server.port}"
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family) as sock:
                sock.connect((host, server.port))
                sock.sendall(GET)
                assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    assert [port for _, port in seen] == [server.port] * 2


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_address() -> None:
    seen = []

    async def app(scope, receive, send):
        seen.append(scope)
        await reply(send)

    with serve(app, host="::1", lifespan="off") as server:
        assert server.url == f"http://[::1]:{server.port}"
        with socket.create_connection(("::1", server.port)) as sock:
            sock.sendall(GET)
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
            client = sock.getsockname()[:2]
    assert seen[0]["server"] == ("::1", server.port)
    assert seen[0]["client"] == client


def test_port_in_use() -> None:
    with serve(hello) as server:
        with pytest.raises(ListenError) as raised, serve(hello, port=server.port):
            pytest.fail("two servers share a port")
        message = str(raised.value)
        assert str(server.port) in message
        assert "127.0.0.1" in message
        assert "\n" not in message
        with Client(server) as client:
            assert client.response(GET).status == 200


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_port_in_use_after_startup(loop: Any) -> None:
    """On Linux, two sockets with SO_REUSEADDR can be bound to a port until one of them listens."""

    async def app(scope, receive, send):
        await receive()
        other = stack.enter_context(socket.socket())
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", server._sockets[0].getsockname()[1]))
        other.listen()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    server = Server(app, port=0)
    with ExitStack() as stack, pytest.raises(ListenError, match=r"127\.0\.0\.1:\d+"):
        async with server:
            pytest.fail("two servers share a port")


def test_port_is_free_after_a_stop() -> None:
    with serve(hello) as server, Client(server) as client:
        client.response(GET)
    with serve(hello, port=server.port) as again, Client(again) as client:
        assert client.response(GET).status == 200


def test_unavailable_address() -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1"):
        bind(Config(host="192.0.2.1", port=0))


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_several_addresses(path: str) -> None:
    addresses = ("127.0.0.1:0", "[::1]:0", f"unix:{path}")
    with serve(hello, bind=addresses, lifespan="off") as server:
        assert [address.rpartition(":")[0] for address in server.server.addresses] == [
            "http://127.0.0.1",
            "http://[::1]",
            "unix",
        ]
        for address in server.server.addresses:
            host, _, end = address.removeprefix("http://").rpartition(":")
            family = socket.AF_UNIX if host == "unix" else socket.AF_INET6
            family = socket.AF_INET if host == "127.0.0.1" else family
            with socket.socket(family) as sock:
                sock.connect(end if host == "unix" else (host.strip("[]"), int(end)))
                sock.sendall(GET)
                assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    assert not os.path.lexists(path)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv6_wildcard_and_ipv4() -> None:
    (port,) = free_ports(1)
    with serve(hello, bind=(f"[::]:{port}", f"127.0.0.1:{port}"), lifespan="off") as server:
        assert server.server.addresses == [f"http://[::]:{port}", f"http://127.0.0.1:{port}"]


@pytest.mark.parametrize("bad", ["127.0.0.1:{port}", "unix:no/such/place"])
def test_one_invalid_address_of_several(bad: str, path: str) -> None:
    """The sockets of the other addresses are closed."""
    with serve(hello) as server:
        with pytest.raises(ListenError):
            bind(Config(bind=(f"unix:{path}", "127.0.0.1:0", bad.format(port=server.port))))
        assert not os.path.lexists(path)


@pytest.mark.skipif(sys.platform != "linux", reason="one queue for all elsewhere")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_each_slot_has_a_queue(host: str) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with ExitStack() as stack:
        (first,) = bind(Config(host=host, port=0))
        slots = [stack.enter_context(first)]
        slots += [stack.enter_context(clone(first)) for _ in range(3)]
        for sock in slots:
            sock.listen()
            sock.setblocking(False)
        place = ("::1" if ":" in host else "127.0.0.1"), first.getsockname()[1]
        for _ in range(200):
            stack.enter_context(socket.create_connection(place, PATIENCE))
        shares = []
        for sock in slots:
            shares.append(0)
            with suppress(BlockingIOError):
                while True:
                    stack.enter_context(sock.accept()[0])
                    shares[-1] += 1
        assert sum(shares) == 200
        assert min(shares) > 0
        with pytest.raises(ListenError):  # although it would share the port, too
            bind(Config(host=host, port=first.getsockname()[1]))


@posix
def test_slots_share_other_sockets(path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        for config in (Config(uds=path), Config(fd=given.fileno())):
            (first,) = bind(config)
            assert not has_own_queue(first)
            paths = socket_files([first])
            first.close()
            remove_files(paths)
        assert not os.path.exists(path)


# Inherited sockets.


def test_inherited_sockets() -> None:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [sock.getsockname()[1] for sock in sockets]
    with serve(hello, sockets=sockets) as server:
        assert server.server.addresses == [f"http://127.0.0.1:{port}" for port in ports]
        for port in ports:
            with Client(port) as client:
                assert client.response(GET).status == 200
    assert all(sock.fileno() == -1 for sock in sockets)


@posix
@pytest.mark.parametrize("listening", [True, False])
def test_file_descriptor(listening: bool) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        if listening:
            sock.listen()
        with serve(hello, fd=sock.fileno()) as server:
            assert server.port == sock.getsockname()[1]
            with Client(server) as client:
                assert client.response(GET).status == 200


@posix
def test_file_descriptor_of_a_unix_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        with serve(hello, fd=sock.fileno()), Client(path) as client:
            assert client.response(GET).status == 200


@posix
def test_file_descriptor_not_a_socket(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(ListenError, match="fd"):
        bind(Config(fd=file.fileno()))
    with pytest.raises(ListenError, match="fd://999"):
        bind(Config(fd=999))
    with pytest.raises(ListenError, match="fd://99999999999"):
        bind(Config(fd=99999999999))


@posix
@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("datagram", "not a TCP socket or a unix stream socket"),
        ("unix datagram", "not a TCP socket or a unix stream socket"),
        ("connected", "the socket is a connection"),
        ("connected unix", "the socket is not bound"),  # a socket pair has no names
        ("unbound", "the socket is not bound"),
        ("unbound unix", "the socket is not bound"),
    ],
)
def test_file_descriptor_of_an_unsuitable_socket(kind: str, fault: str) -> None:
    with ExitStack() as stack:
        family = socket.AF_UNIX if "unix" in kind else socket.AF_INET
        if kind == "connected unix":
            sock, _ = map(stack.enter_context, socket.socketpair())
        elif kind == "connected":
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            sock = stack.enter_context(socket.create_connection(server.getsockname()))
        else:
            type_ = socket.SOCK_DGRAM if "datagram" in kind else socket.SOCK_STREAM
            sock = stack.enter_context(socket.socket(family, type_))
            if kind == "datagram":
                sock.bind(("127.0.0.1", 0))
        with pytest.raises(ListenError, match=f"fd://{sock.fileno()}: .*{fault}"):
            bind(Config(fd=sock.fileno()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has sockets without a file")
def test_file_descriptor_of_a_socket_without_a_file() -> None:
    name = f"\0tinyasgi-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(name)
        with serve(hello, fd=sock.fileno()) as server, Client(name) as client:
            assert server.url == f"unix:@{name[1:]}"
            assert client.response(GET).status == 200


@pytest.mark.parametrize("host", ["a" * 64, "a..b", "a\0b"])
def test_invalid_host(host: str) -> None:
    with pytest.raises(ListenError, match="can't listen on "):
        bind(Config(host=host))


# Unix sockets.


@posix
def test_unix_socket(path: str) -> None:
    scopes: list[Any] = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await reply(send, b"unix")

    with serve(app, uds=path, lifespan="off") as server:
        assert server.url == f"unix:{os.path.abspath(path)}"
        assert (server.host, server.port) == ("", 0)
        with Client(path) as client:
            assert client.response(GET).body == b"unix"
    assert list(scopes[0]["server"]) == [os.path.abspath(path), None]
    assert scopes[0]["client"] is None
    assert not os.path.lexists(path)


@posix
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_unix_socket_mode(path: str, mode: int) -> None:
    before = os.umask(0o077)
    try:
        with serve(hello, uds=path, uds_mode=mode):
            assert stat.S_IMODE(os.stat(path).st_mode) == mode
    finally:
        os.umask(before)


@posix
def test_unix_socket_group(path: str) -> None:
    import grp

    # Root may set any group, other users one of their own.
    number = os.getgid() or max(group.gr_gid for group in grp.getgrall())
    for name in (str(number), grp.getgrgid(number).gr_name):
        with serve(hello, uds=path, uds_group=name):
            assert os.stat(path).st_gid == number


@posix
@pytest.mark.parametrize("group", ["no such", "0"])
def test_invalid_unix_socket_group(group: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def chown(path: str, user: int, group: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    why = "Operation not permitted" if group == "0" else "group 'no such' does not exist"
    with pytest.raises(ListenError, match=why), serve(hello, uds=path, uds_group=group):
        pass
    assert not os.path.exists(path)


@posix
def test_stale_unix_socket_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    assert os.path.exists(path)
    with serve(hello, uds=path), Client(path) as client:
        assert client.response(GET).status == 200


@posix
def test_live_unix_socket_is_refused(path: str) -> None:
    with serve(hello, uds=path):
        with pytest.raises(ListenError, match=path), serve(hello, uds=path):
            pytest.fail("two servers share a socket")
        with Client(path) as client:
            assert client.response(GET).status == 200


@posix
def test_unix_socket_of_a_starting_server_is_refused(path: str) -> None:
    (first,) = bind(Config(uds=path))
    with pytest.raises(ListenError, match=path):
        bind(Config(uds=path))
    close([first])
    assert not os.path.exists(path)


@posix
def test_stale_unix_socket_is_replaced_by_one_server(path: str) -> None:
    """If several servers start at the same time."""
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        found: list[socket.socket] = []
        refused: list[ListenError] = []
        barrier = threading.Barrier(4)

        def start(found: Any = found, refused: Any = refused, barrier: Any = barrier) -> None:
            barrier.wait()
            try:
                found += bind(Config(uds=path))
            except ListenError as error:
                refused.append(error)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(found), len(refused)) == (1, 3)
        with Client(path):
            pass
        close(found)
        assert not os.path.exists(path)


@posix
def test_lock_of_another_program_is_ignored_after_a_timeout(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(listen, "LOCK_TIMEOUT", 0.02)
    directory = os.open(".", os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    try:
        close(bind(Config(uds=path)))
    finally:
        os.close(directory)


@pytest.mark.skipif(sys.platform != "linux", reason="a full queue refuses elsewhere")
def test_busy_unix_socket_is_refused(path: str) -> None:
    """Even if the accept queue of the server is full."""
    errors = []

    def start() -> None:
        try:
            bind(Config(uds=path))[0].close()
        except ListenError as error:
            errors.append(error)

    with ExitStack() as stack:
        with socket.socket(socket.AF_UNIX) as busy:
            busy.bind(path)
            busy.listen(0)
            full = 0
            while not full:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                full = client.connect_ex(path)
            thread = threading.Thread(target=start)
            thread.start()
            thread.join(PATIENCE)
        thread.join()
    assert len(errors) == 1


@posix
def test_other_files_are_not_replaced(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(ListenError, match=path):
        bind(Config(uds=path))
    assert Path(path).read_text() == "precious"


@posix
def test_dangling_link_is_not_replaced(path: str) -> None:
    os.symlink("nowhere", path)
    with pytest.raises(ListenError, match=path):
        bind(Config(uds=path))
    assert os.path.islink(path)


@posix
def test_successor_keeps_its_unix_socket(path: str) -> None:
    """A server removes its own file when it stops, but not the file of its successor."""
    with serve(hello, uds=path):
        os.unlink(path)
        successor = socket.socket(socket.AF_UNIX)
        successor.bind(path)
        successor.listen()
    assert os.path.exists(path)
    successor.close()


@posix
def test_unix_socket_with_a_long_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a path exceeds the limit of the kernel, so a relative path is used."""
    directory = tmp_path / ("a" * 100)
    directory.mkdir()
    monkeypatch.chdir(directory)
    with serve(hello, uds="sock") as server:
        assert server.url == f"unix:{directory}/sock"
        with Client("sock") as client:
            assert client.response(GET).status == 200
        with pytest.raises(ListenError, match="another server is listening there"):
            bind(Config(uds=f"{directory}/sock"))
    assert not (directory / "sock").exists()
    monkeypatch.chdir(tmp_path.root)
    with pytest.raises(ListenError, match="too long"):
        bind(Config(uds=f"{directory}/sock"))


@posix
def test_unix_socket_where_there_is_no_directory() -> None:
    with pytest.raises(ListenError, match="no/such/place"):
        bind(Config(uds="no/such/place"))
