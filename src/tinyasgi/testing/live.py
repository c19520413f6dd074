"""For tests: a real server in a thread, and a connection in memory."""

import asyncio
import logging
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from socket import socket
from typing import Any
from weakref import WeakSet

from ..app.load import created
from ..config.config import Config
from ..importer import load
from ..net.accept import let_loop_read
from ..process.loop import loop_factory
from ..protocols.exchange import COMPLETE
from ..server.server import Server
from .memory import MemoryConnection, connect

__all__ = ["LiveServer", "MemoryConnection", "connect", "serve"]

DEFAULTS = Config(port=0, timeout_graceful_shutdown=5.0)
#: Seconds beyond those of the configuration until a server that does not stop is given up.
SPARE = 10.0
#: Seconds in which an expected exception comes.
PATIENCE = 10.0

logger = logging.getLogger("tinyasgi")

#: The server that the current code is run by.
_server: ContextVar["LiveServer"] = ContextVar("tinyasgi.testing.live.server")


class LiveServer:
    """A server that runs in a thread, in an event loop of its own. `serve` makes it."""

    url: str
    """Where it listens: `http://`, `https://`, or `unix:` and a path."""
    ws_url: str
    """The same for WebSocket, with `ws://` or `wss://`."""
    host: str
    """The address of the URL; empty with a unix socket."""
    port: int
    """The TCP port; 0 with a unix socket."""
    app_state: dict[str, Any]
    """What the app has put into `scope["state"]` in its lifespan startup."""
    server: Server
    """The server itself. Its methods are to be called in its own thread."""

    def __init__(
        self,
        app: Any,
        config: Config,
        sockets: Sequence[socket] = (),
        ca_certs: str | None = None,
        raise_app_exceptions: bool = True,
    ) -> None:
        self.exceptions: list[BaseException] = []
        """What the app has raised, unless it was expected."""
        self.records: list[logging.LogRecord] = []
        """What this server has logged, of the levels that `logging` is set to."""
        self.ca_certs = ca_certs
        """With `tls=True`: path of the certificate, PEM, that a client is to trust."""
        self._app = app
        self._config = config
        self._sockets = sockets
        self._raises = raise_app_exceptions
        self._thread = threading.Thread(target=self._run, name="tinyasgi", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = threading.Event()
        self._stopping = False
        self._raised = threading.Condition()
        self._error: BaseException | None = None
        #: Tasks that outlasted an earlier check, and the exceptions that they have raised since.
        self._outlasting: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._late: list[BaseException] = []

    # In the thread of the test.

    def start(self, timeout: float) -> None:
        """Returns when the server is ready. Raises what keeps it from that.

        timeout: seconds until it is given up, with TimeoutError.
        """
        self._thread.start()
        try:
            in_time = self._ready.wait(timeout)
        except BaseException:  # Ctrl-C
            self.stop()
            raise
        if not in_time:
            self.stop()
            late = TimeoutError(f"the app did not start within {timeout:g} s")
            raise late from (self.exceptions[0] if self.exceptions else self._error)
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Stops the server as its configuration says and waits for its end.

        The end of the `with` block does that, too. Raises TimeoutError when the app keeps the
        thread from its end; that says where it is.
        """
        if not self._stopping:
            self._stopping = True
            with suppress(RuntimeError):  # the loop is closed: it has stopped by itself
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(self._begin_stop)
        # Requests and the lifespan shutdown each have that time.
        limit = 2 * self._config.timeout_graceful_shutdown + SPARE
        self._thread.join(limit)
        if self._thread.is_alive():
            raise self._stuck(limit)

    def _stuck(self, seconds: float) -> TimeoutError:
        error = TimeoutError(f"the server did not stop within {seconds:g} s")
        frame = sys._current_frames().get(self._thread.ident or 0)
        stack = "".join(traceback.format_stack(frame))
        tasks = "\n".join(map(repr, asyncio.all_tasks(self._loop))) if self._loop else ""
        error.add_note(f"Its thread is at:\n{stack}\nIts tasks are:\n{tasks}")
        return error

    @contextmanager
    def expect(
        self, kind: type[BaseException] | tuple[type[BaseException], ...]
    ) -> Iterator[list[BaseException]]:
        """The app raises such an exception because of what is done in the block.

            with server.expect(KeyError) as errors:
                httpx.get(server.url)

        At the end of the block the list has that one exception, and `exceptions` no longer has
        it. Raises AssertionError when none has come within 10 seconds.
        """
        earlier = self.exceptions.copy()
        found: list[BaseException] = []
        yield found

        def look() -> bool:
            for index, error in enumerate(self.exceptions):
                if isinstance(error, kind) and not any(error is each for each in earlier):
                    found.append(self.exceptions.pop(index))
                    return True
            return False

        with self._raised:
            if not self._raised.wait_for(look, PATIENCE):
                kinds = kind if isinstance(kind, tuple) else (kind,)
                raise AssertionError(f"no {' or '.join(k.__name__ for k in kinds)} from the app")

    def check(self) -> None:
        """Raises what the app has raised unexpectedly since the last check, if anything.

        One exception is raised as it is, several as a group. Waits for requests that still run
        after their response, at most `timeout_graceful_shutdown`. What one that takes longer
        raises is raised on exit.
        """
        __tracebackhide__ = True  # of pytest: the app's frames matter
        settled = threading.Event()
        with suppress(RuntimeError):  # the loop is closed
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._begin_settling, settled)
                settled.wait(self._config.timeout_graceful_shutdown + PATIENCE)
        failures = self._failures()
        if len(failures) > 1:
            raise BaseExceptionGroup("the app failed more than once", failures)
        if failures:
            raise failures[0]

    def _failures(self) -> list[BaseException]:
        """What `check` would raise; it is forgotten with that."""
        failures: list[BaseException] = []
        if self._raises:
            with self._raised:
                failures += self.exceptions
                self.exceptions.clear()
                if self._stopping:
                    failures += self._late
                    self._late.clear()
        if self._error is not None and id(self._error) not in map(id, failures):
            failures.append(self._error)
        self._error = None
        return failures

    # In its own thread.

    def _run(self) -> None:
        _server.set(self)  # in the context of all that the loop runs
        handler = _Keep(self)
        logger.addHandler(handler)
        try:
            with asyncio.Runner(loop_factory=loop_factory(self._config)) as runner:
                runner.run(self._main())
        except BaseException as error:
            self._error = error
        finally:
            logger.removeHandler(handler)
            self._ready.set()

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        if self._stopping:
            return
        app, config = self._app, self._config
        async with AsyncExitStack() as stack:
            if isinstance(app, str):
                app = load(app, config.app_dir)
            if config.factory:
                app = await stack.enter_async_context(created(app))
            server = Server(app, config, sockets=self._sockets, on_error=self._on_error)
            self.server = await stack.enter_async_context(server)
            self.url, self.ws_url = server.url, server.ws_url
            self.host, self.port = server.host, server.port
            self.app_state = server.app_state
            self._ready.set()
            await server.stopped()

    def _begin_settling(self, settled: threading.Event) -> None:
        self._settling = asyncio.ensure_future(self._settle(settled))

    async def _settle(self, settled: threading.Event) -> None:
        """Wait for requests whose response is over, and set the event."""
        try:
            await let_loop_read()  # clients may have left
            running = self.server._context.running
            over = {each.task for each in running if each.task and each.phase >= COMPLETE}
            if over := over.difference(self._outlasting):
                limit = self._config.timeout_graceful_shutdown
                _, outlasting = await asyncio.wait(over, timeout=limit)
                self._outlasting.update(outlasting)
        finally:
            settled.set()

    def _begin_stop(self) -> None:
        if self._ready.is_set():
            self.server.stop()
        elif self._task is not None:
            self._task.cancel()

    def _on_error(self, what: str, error: BaseException) -> None:
        if self._stopping and isinstance(error, asyncio.CancelledError):
            cancelled, error = error, TimeoutError(f"{what}: the app did not end in time")
            error.__cause__ = cancelled  # where it was
        else:
            _add_note(error, f"in {what}")
        exceptions = self.exceptions
        if asyncio.current_task() in self._outlasting:
            _add_note(error, "after an earlier check has waited for it")
            exceptions = self._late
        with self._raised:
            exceptions.append(error)
            self._raised.notify_all()


def _add_note(error: BaseException, note: str) -> None:
    with suppress(Exception):  # it may be frozen
        error.add_note(note)


class _Keep(logging.Handler):
    """Keeps the records of one server: of its own thread, and of threads that it has work done by.

    These run in copies of its context, as `asyncio.to_thread` and WSGI apps do.
    """

    def __init__(self, server: LiveServer) -> None:
        super().__init__()
        self._server = server

    def emit(self, record: logging.LogRecord) -> None:
        if _server.get(None) is self._server:
            self._server.records.append(record)


@contextmanager
def serve(
    app: Any,
    config: Config = DEFAULTS,
    *,
    sockets: Sequence[socket] = (),
    tls: bool = False,
    raise_app_exceptions: bool = True,
    timeout_startup: float = 30.0,
    **options: Any,
) -> Iterator[LiveServer]:
    """A server in a thread with a loop of its own, ready on entry, stopped on exit.

        with serve(app) as server:
            httpx.get(server.url)

    app: an ASGI or WSGI application, `"module:attribute"`, or with `factory=True` what makes one.
    config, options, sockets: as for `Server`; without a `config` of its own it takes a free port,
    and gives running requests 5 seconds to end when it stops. tls: with a throwaway certificate for
    localhost, which `LiveServer.ca_certs` vouches for; needs `trustme`. timeout_startup: seconds.

    Raises on entry what keeps the server from starting: OptionError, LoadError, ListenError,
    LifespanFailed, TimeoutError. On exit, unless `raise_app_exceptions` is false, what the app
    has raised; to an exception of the `with` block that is added as a note. A request that did
    not end in time for the stop is a TimeoutError.
    """
    with ExitStack() as stack:
        ca_certs = None
        if tls:
            options["ssl_certfile"], ca_certs = stack.enter_context(_certificate())
        config = config.replace(**options).resolved()
        server = LiveServer(app, config, sockets, ca_certs, raise_app_exceptions)
        server.start(timeout_startup)
        try:
            yield server
        except BaseException as error:
            server.stop()
            for failure in server._failures():
                story = "".join(traceback.format_exception(failure))
                _add_note(error, f"The app failed meanwhile:\n{story}")
            raise
        server.stop()
        server.check()


@contextmanager
def _certificate() -> Iterator[tuple[str, str]]:
    """Files with a certificate for this machine, its key, and the authority that signed it."""
    try:
        import trustme
    except ImportError:
        raise ImportError("tls=True needs trustme: pip install 'tinyasgi[testing]'") from None
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1", "::1")
    with tempfile.TemporaryDirectory(prefix="tinyasgi-") as folder:
        certfile, ca_certs = str(Path(folder, "server.pem")), str(Path(folder, "ca.pem"))
        server.private_key_and_cert_chain_pem.write_to_path(certfile)
        authority.cert_pem.write_to_path(ca_certs)
        yield certfile, ca_certs
