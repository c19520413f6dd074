"""Access lines: their values, their formats, and their conversion to log records."""

import functools
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Final, TypeAlias

from ..config.config import Config
from ..protocols.exchange import Exchange
from ..protocols.states import COMPLETE, LOST, REFUSED
from .formatters import iso_time, process_keys

logger = logging.getLogger("tinyasgi.access")
_package_logger = logging.getLogger("tinyasgi")

#: Logged as the status, as in nginx, if the client disconnected before a status was sent.
CLIENT_CLOSED_REQUEST: Final = 499

#: A function that formats an exchange as an access line.
LineFormatter: TypeAlias = Callable[[Exchange], str]
#: A function that returns one value of an exchange, or None.
Getter: TypeAlias = Callable[[Exchange], str | int | float | None]


# Values.


def _seconds(exchange: Exchange) -> float:
    return perf_counter() - exchange.started


def _status(exchange: Exchange) -> int:
    return exchange.status or CLIENT_CLOSED_REQUEST


def _client(exchange: Exchange) -> str | None:
    client = exchange.client.scope["client"]
    return client[0] if client is not None else None


def _query(exchange: Exchange) -> str:
    return exchange.line.scope["query_string"].decode("ascii")  # type: ignore[no-any-return]


def _path(exchange: Exchange) -> str | None:
    return exchange.line.scope["raw_path"].decode("ascii") or None


def _user(exchange: Exchange) -> str | None:
    """User of Basic authentication (RFC 7617). Spaces are escaped, so the name is one column."""
    header = _authorization(exchange)
    if header is None:
        return None
    import binascii  # rarely needed

    kind, _, code = str(header).partition(" ")
    try:
        user = binascii.a2b_base64(code).partition(b":")[0].decode("latin-1")
    except ValueError:
        return None
    return user.replace(" ", "%20") if kind.lower() == "basic" else None


def _request_id(exchange: Exchange) -> str | None:
    try:
        found = exchange.scope["state"].get("request_id")
        return str(found) if found is not None else None
    except Exception:  # the app may have put anything into its scope
        return None


@functools.lru_cache(4)
def _common_time(seconds: int) -> str:
    """Format a Unix time as local time in the Common Log Format."""
    return time.strftime("[%d/%b/%Y:%H:%M:%S %z]", time.localtime(seconds))


def _connection_status(exchange: Exchange) -> str:
    if exchange.phase is LOST:
        return "X"
    return "+" if exchange.persistent else "-"


def _request_header(name: str) -> Getter:
    wanted = name.lower().encode()
    return lambda exchange: _value(exchange.scope.get("headers"), wanted)


def _response_header(name: str) -> Getter:
    wanted = name.lower().encode()
    return lambda exchange: _value(getattr(exchange, "response_headers", ()), wanted)


def _value(headers: Any, wanted: bytes) -> str | None:
    try:
        for name, value in headers:
            if name.lower() == wanted:
                return value.decode("latin-1")  # type: ignore[no-any-return]
    except Exception:  # the app may have put anything into its headers
        pass
    return None


_authorization = _request_header("authorization")

#: Fields of a format: those of gunicorn, the request id, and `X`, the connection status of Apache.
FIELDS: dict[str, Getter] = {
    "h": _client,
    "l": lambda _: None,
    "u": _user,
    "t": lambda _: _common_time(int(time.time())),
    "r": lambda exchange: exchange.line.text,
    "m": lambda exchange: exchange.line.method or None,
    "U": _path,
    "q": _query,
    "H": lambda exchange: f"HTTP/{exchange.line.version}" if exchange.line.version else None,
    "s": _status,
    "b": lambda exchange: exchange.sent or None,
    "B": lambda exchange: exchange.sent,
    "f": _request_header("referer"),
    "a": _request_header("user-agent"),
    "T": lambda exchange: int(_seconds(exchange)),
    "M": lambda exchange: int(_seconds(exchange) * 1e3),
    "D": lambda exchange: int(_seconds(exchange) * 1e6),
    "L": lambda exchange: f"{_seconds(exchange):.6f}",
    "p": lambda _: f"<{os.getpid()}>",
    "id": _request_id,
    "X": _connection_status,
}
#: The keys of access lines in JSON, and the attributes of access records.
KEYS: dict[str, Getter] = {
    "client": _client,
    "method": FIELDS["m"],
    "path": _path,
    "query": _query,
    "version": lambda exchange: exchange.line.version or None,
    "status": _status,
    "bytes": FIELDS["B"],
    "duration_ms": lambda exchange: int(_seconds(exchange) * 1e6) / 1e3,
    "referer": FIELDS["f"],
    "user_agent": FIELDS["a"],
    "request_id": _request_id,
    "aborted": lambda exchange: exchange.phase is LOST,
}

_COMMON = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s'
PRESETS = {"common": _COMMON, "combined": _COMMON + ' "%(f)s" "%(a)s"'}


# Formats.


def line_formatter(config: Config) -> LineFormatter:
    """Return the function that formats access lines. Raises OptionError."""
    name = config.access_log_format or ("json" if config.log_format == "json" else "default")
    if name == "default":
        return default_line
    if name == "json":
        return _json_formatter()
    try:
        return _compile(PRESETS.get(name, name))
    except ValueError as error:
        raise config.error("access_log_format", name, str(error)) from None


def default_line(exchange: Exchange) -> str:
    """Format the default line: client, request line, status, bytes of the body, milliseconds.

    `aborted` at the end marks an incomplete response.
    """
    duration = (perf_counter() - exchange.started) * 1000
    client, text, mark = exchange.client.name, exchange.line.text, ""
    if exchange.phase is LOST:
        mark = " aborted"
    elif exchange.phase is REFUSED:
        text = _quoted(text)
    status = exchange.status or CLIENT_CLOSED_REQUEST
    return f'{client} "{text}" {status} {exchange.sent} B {duration:.1f} ms{mark}'


def _compile(text: str) -> LineFormatter:
    """Compile a format with gunicorn's fields. If it begins with `{`, escape values as in JSON.

    Raises ValueError with a text such as `has no fields`; the caller puts the format before it.
    """
    getters: list[Getter] = []

    def replace(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%%"
        if match["field"] is None:
            found = match[0] + text[match.end() : match.end() + 10]
            raise ValueError(f"has an invalid field: {found!r}; write %% for a percent sign")
        getters.append(getter(match["field"]))
        return "%s"

    template = re.sub(r"%(?:%|\((?P<field>[^()]*)\)[sd]|)", replace, text)
    if not getters:
        names = ", ".join(["default", "json", *PRESETS])
        raise ValueError(f"has no fields; expected {names}, or fields such as %(h)s")
    if text.startswith("{"):
        from json.encoder import encode_basestring_ascii as encode  # lazy: needed only for JSON

        return _filled(template, getters, lambda value: encode(_or_dash(value))[1:-1])
    return _filled_quoted(template, getters)


def getter(field: str) -> Getter:
    if match := re.fullmatch(r"\{([!-z|~]+)\}([ioe])", field):
        name, kind = match.groups()
        if kind == "e":
            value = os.environ.get(name)
            return lambda exchange: value
        return _request_header(name) if kind == "i" else _response_header(name)
    try:
        return FIELDS[field]
    except KeyError:
        text = f"has an unknown field %({field})s; docs/logs.md lists the fields"
        raise ValueError(text) from None


def _filled(template: str, getters: Sequence[Getter], show: Callable[[Any], str]) -> LineFormatter:
    return lambda exchange: template % tuple([show(get(exchange)) for get in getters])


_UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")


def _filled_quoted(template: str, getters: Sequence[Getter]) -> LineFormatter:
    def format_line(exchange: Exchange) -> str:
        values = [_or_dash(get(exchange)) for get in getters]
        if _UNQUOTABLE.search("".join(values)):  # one search for all, because most need no escape
            values = [_quoted(value) for value in values]
        return template % tuple(values)

    return format_line


def _quoted(value: Any) -> str:
    """Escape a value, so that it cannot end a line, close a quotation or control a terminal."""
    return _UNQUOTABLE.sub(_escape, _or_dash(value))


def _or_dash(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in '"\\':
        return "\\" + character
    return ascii(character)[1:-1] if character > "\xff" else f"\\x{ord(character):02x}"


def _json_formatter() -> LineFormatter:
    """Return a function that formats lines with the keys of `JSONFormatter`, followed by KEYS.

    Filling a template takes about two thirds of the time of encoding a dict with `json`.
    """
    from json.encoder import encode_basestring_ascii as encode  # lazy: needed only for JSON

    process = "".join([f'"{key}":{value},' for key, value in process_keys().items()])
    start = '{"time":%s,"level":"info","logger":"tinyasgi.access","message":%s,' + process
    getters = [lambda _: iso_time(time.time()), FIELDS["r"], *KEYS.values()]

    def show(value: Any) -> str:
        kind = type(value)
        if kind is str:
            return encode(value)
        if kind is int or kind is float:
            return str(value)
        return "null" if value is None else str(value).lower()

    return _filled(start + ",".join([f'"{key}":%s' for key in KEYS]) + "}", getters, show)


# Log records.


def is_enabled() -> bool:
    """Return whether `tinyasgi.access` itself lets access lines through.

    The level of the parent logger does not count: `--log-level` sets it for server messages.
    """
    return logger.level <= logging.INFO > logger.manager.disable and not logger.disabled


def has_handlers() -> bool:
    """Return whether the user has added a handler to `tinyasgi.access` or `tinyasgi`."""
    return bool(logger.handlers or _package_logger.handlers)


def _values(exchange: Exchange) -> dict[str, Any]:
    return {key: get(exchange) for key, get in KEYS.items()}


def filtered(exchange: Exchange, line: str) -> str | None:
    """Apply the filters of `tinyasgi.access` to a line; return None if one of them drops it."""
    if not logger.filters:
        return line
    record = logger.makeRecord(
        logger.name, logging.INFO, __file__, 0, "%s", (line,), None, extra=_values(exchange)
    )
    passed: bool | logging.LogRecord = logger.filter(record)
    if isinstance(passed, logging.LogRecord):  # from Python 3.12 on a filter may replace it
        record = passed
    return record.getMessage() if passed else None


def record_logger(config: Config) -> Callable[[Exchange], None]:
    """Return a function that logs an exchange as a record with KEYS as attributes.

    Raises OptionError.
    """
    format_line = line_formatter(config)
    if config.log_format == "json" and config.access_log_format in (None, "json"):
        format_line = default_line  # JSONFormatter adds the KEYS

    def log(exchange: Exchange) -> None:
        if logger.isEnabledFor(logging.INFO):
            logger.info("%s", format_line(exchange), extra=_values(exchange))

    return log


def exchange_filter(
    config: Config,
    count: Callable[[Exchange], None] | None,
    log: Callable[[Exchange], None] | None,
) -> Callable[[Exchange], None] | None:
    """Return a function that passes finished exchanges to `count` and `log`.

    Neither gets health checks. `log` gets no successful request to a path of `access_log_exclude`.
    Return None if there is nothing to call.
    """
    health_path, excluded = config.health_path, None
    if config.access_log_exclude and log is not None:
        import fnmatch

        patterns = map(fnmatch.translate, config.access_log_exclude)
        excluded = re.compile("|".join(patterns)).match
    if count is None and (log is None or (health_path is None and excluded is None)):
        return log

    def observe(exchange: Exchange) -> None:
        if health_path is not None and exchange.is_health_check(health_path):
            return
        if count is not None:
            count(exchange)
        successful = 200 <= exchange.status < 300 and exchange.phase is COMPLETE
        if log is None or (successful and excluded and excluded(exchange.line.route)):
            return
        log(exchange)

    return observe
