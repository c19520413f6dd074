"""A real server for tests, in a thread of its own."""

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
from ..protocols.states import COMPLETE
from ..server.server import Server

DEFAULTS = Config(port=0, timeout_graceful_shutdown=5.0)
#: Seconds to wait for the server's thread, in addition to the timeouts of its configuration.
EXTRA_TIMEOUT = 10.0
#: Seconds to wait for an exception that the test expects.
EXPECT_TIMEOUT = 10.0

logger = logging.getLogger("tinyasgi")

#: The server that runs the current code.
_current_server: ContextVar["LiveServer"] = ContextVar("tinyasgi.testing.live.server")


class LiveServer:
    """A server in a thread with an event loop of its own. Use `serve` to create one."""

    url: str
    """Address: `http://`, `https://`, or `unix:` with a path."""
    ws_url: str
    """The same address for WebSocket, with `ws://` or `wss://`."""
    host: str
    """Host of the URL; empty for a unix socket."""
    port: int
    """TCP port; 0 for a unix socket."""
    app_state: dict[str, Any]
    """State that the app has set in its lifespan startup (`scope["state"]`)."""
    server: Server
    """The server itself. Call its methods only in its own thread."""

    def __init__(
        self,
        app: Any,
        config: Config,
        sockets: Sequence[socket] = (),
        ca_certs: str | None = None,
        raise_app_exceptions: bool = True,
    ) -> None:
        self.exceptions: list[BaseException] = []
        """Exceptions of the app outside `expect` blocks."""
        self.records: list[logging.LogRecord] = []
        """Log records of this server, at the levels that `logging` is set to."""
        self.ca_certs = ca_certs
        """With `tls=True`: path of the CA certificate (PEM) that a client must trust."""
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
        #: Tasks that were still running at the end of a `check`.
        self._late_tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        #: Exceptions that these tasks have raised since.
        self._late_exceptions: list[BaseException] = []

    # Methods for the thread of the test.

    def start(self, timeout: float) -> None:
        """Start the server and wait until it is ready.

        timeout: seconds. Raises TimeoutError, or the error that prevented the start.
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
        """Shut down gracefully and wait for the end. The end of the `with` block also does this.

        Raises TimeoutError if the app blocks the thread. The notes of this error show the stack.
        """
        if not self._stopping:
            self._stopping = True
            with suppress(RuntimeError):  # the loop is closed: the server has already stopped
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(self._begin_stop)
        # Running requests and lifespan shutdown each have the full timeout.
        limit = 2 * self._config.timeout_graceful_shutdown + EXTRA_TIMEOUT
        self._thread.join(limit)
        if self._thread.is_alive():
            raise self._blocked(limit)

    def _blocked(self, seconds: float) -> TimeoutError:
        error = TimeoutError(f"the server did not stop within {seconds:g} s")
        frame = sys._current_frames().get(self._thread.ident or 0)
        stack = "".join(traceback.format_stack(frame))
        tasks = "\n".join(map(repr, asyncio.all_tasks(self._loop))) if self._loop else ""
        error.add_note(f"Stack of its thread:\n{stack}\nTasks of its event loop:\n{tasks}")
        return error

    @contextmanager
    def expect(
        self, kind: type[BaseException] | tuple[type[BaseException], ...]
    ) -> Iterator[list[BaseException]]:
        """Expect that the app raises an exception of this type in the block.

            with server.expect(KeyError) as errors:
                httpx.get(server.url)

        At the end of the block, the exception is moved from `exceptions` to the list. Raises
        AssertionError if the app raises none within 10 seconds.
        """
        earlier = self.exceptions.copy()
        found: list[BaseException] = []
        yield found

        def find() -> bool:
            for index, error in enumerate(self.exceptions):
                if isinstance(error, kind) and not any(error is each for each in earlier):
                    found.append(self.exceptions.pop(index))
                    return True
            return False

        with self._raised:
            if not self._raised.wait_for(find, EXPECT_TIMEOUT):
                kinds = kind if isinstance(kind, tuple) else (kind,)
                names = " or ".join(each.__name__ for each in kinds)
                raise AssertionError(f"expected the app to raise {names}, but it did not")

    def check(self) -> None:
        """Raise the exceptions of the app since the last check, except expected ones.

        One exception is raised as it is, several as a group. Requests may still run after their
        response; this method waits for them, at most for `timeout_graceful_shutdown`. Exceptions
        of requests that take longer are raised on exit.
        """
        __tracebackhide__ = True  # pytest then shows the frames of the app
        settled = threading.Event()
        with suppress(RuntimeError):  # the loop is closed
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._begin_settling, settled)
                settled.wait(self._config.timeout_graceful_shutdown + EXTRA_TIMEOUT)
        failures = self._take_failures()
        if len(failures) > 1:
            raise BaseExceptionGroup("the app raised several exceptions", failures)
        if failures:
            raise failures[0]

    def _take_failures(self) -> list[BaseException]:
        """Return the exceptions for `check` and forget them."""
        failures: list[BaseException] = []
        if self._raises:
            with self._raised:
                failures += self.exceptions
                self.exceptions.clear()
                if self._stopping:
                    failures += self._late_exceptions
                    self._late_exceptions.clear()
        if self._error is not None and id(self._error) not in map(id, failures):
            failures.append(self._error)
        self._error = None
        return failures

    # Methods for the thread of the server.

    def _run(self) -> None:
        _current_server.set(self)  # inherited by everything that the loop runs
        handler = _RecordHandler(self)
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
        """Wait for apps that still run after their response, then set the event."""
        try:
            await let_loop_read()  # notice clients that have disconnected
            running = self.server._context.running
            tasks = {each.task for each in running if each.task and each.phase >= COMPLETE}
            if tasks := tasks.difference(self._late_tasks):
                limit = self._config.timeout_graceful_shutdown
                _, late_tasks = await asyncio.wait(tasks, timeout=limit)
                self._late_tasks.update(late_tasks)
        finally:
            settled.set()

    def _begin_stop(self) -> None:
        if self._ready.is_set():
            self.server.stop()
        elif self._task is not None:
            self._task.cancel()

    def _on_error(self, what: str, error: BaseException) -> None:
        if self._stopping and isinstance(error, asyncio.CancelledError):
            limit = f"{self._config.timeout_graceful_shutdown:g} s (timeout_graceful_shutdown)"
            cancelled, error = error, TimeoutError(f"{what}: not finished within {limit}")
            error.__cause__ = cancelled  # shows where the app was
        else:
            _add_note(error, f"in {what}")
        exceptions = self.exceptions
        if asyncio.current_task() in self._late_tasks:
            _add_note(error, "raised after an earlier check had stopped waiting for this request")
            exceptions = self._late_exceptions
        with self._raised:
            exceptions.append(error)
            self._raised.notify_all()


def _add_note(error: BaseException, note: str) -> None:
    with suppress(Exception):  # the exception may be immutable
        error.add_note(note)


class _RecordHandler(logging.Handler):
    """Handler that collects the log records of one server.

    The records come from the thread of the server, and from threads that run in copies of its
    context, such as those of `asyncio.to_thread` and of WSGI apps.
    """

    def __init__(self, server: LiveServer) -> None:
        super().__init__()
        self._server = server

    def emit(self, record: logging.LogRecord) -> None:
        if _current_server.get(None) is self._server:
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
    """Run a server for the duration of a `with` block, in a thread with its own event loop.

        with serve(app) as server:
            httpx.get(server.url)

    It is ready on entry and has shut down gracefully on exit.

    app: an ASGI or WSGI application, `"module:attribute"`, or with `factory=True` an app factory.
    config, options, sockets: as for `Server`. The default config uses a free port, and gives
    running requests 5 seconds on exit.
    tls: serve HTTPS with a temporary certificate for localhost, signed by the CA in
    `LiveServer.ca_certs`; needs `trustme`.
    raise_app_exceptions: raise exceptions of the app on exit. If false, they are only collected in
    `LiveServer.exceptions`.
    timeout_startup: seconds.

    On entry, raises OptionError, LoadError, ListenError, LifespanFailed or TimeoutError. On exit,
    raises the exceptions of the app, and TimeoutError for a request that was cancelled because it
    did not finish. If the block itself raises, these are added as notes.
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
            for failure in server._take_failures():
                text = "".join(traceback.format_exception(failure))
                _add_note(error, f"Meanwhile the app raised:\n{text}")
            raise
        server.stop()
        server.check()


@contextmanager
def _certificate() -> Iterator[tuple[str, str]]:
    """Create the files `certfile` (with its key) and `ca_certs` for localhost."""
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
