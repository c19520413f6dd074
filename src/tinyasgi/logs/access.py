"""The access line: what it says of an exchange, in which format, and of which exchanges."""

import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Final, TypeAlias

from ..config.config import Config
from ..protocols.exchange import COMPLETE, LOST, REFUSED, Exchange
from .formatters import iso_time

__all__ = ["Line", "default_line", "filtered", "formatter", "has_handlers", "is_enabled"]
__all__ += ["records", "without"]

logger = logging.getLogger("tinyasgi.access")
_package_logger = logging.getLogger("tinyasgi")

#: The status of an exchange whose client has left before there was one, as nginx has it.
LEFT: Final = 499

#: What an access line is made by.
Line: TypeAlias = Callable[[Exchange], str]
#: What tells one thing of an exchange; None when there is nothing to tell.
Getter: TypeAlias = Callable[[Exchange], str | int | float | None]


# What can be told.


def default_line(exchange: Exchange) -> str:
    """Client, request line, status, bytes of body, milliseconds, and whether it was cut off."""
    taken = (perf_counter() - exchange.started) * 1000
    client, text, mark = exchange.client.name, exchange.line.text, ""
    if exchange.phase == LOST:
        mark = " aborted"
    elif exchange.phase == REFUSED:
        text = _quoted(text)
    return f'{client} "{text}" {exchange.status or LEFT} {exchange.sent} B {taken:.1f} ms{mark}'


def _seconds(exchange: Exchange) -> float:
    return perf_counter() - exchange.started


def _client(exchange: Exchange) -> str | None:
    client = exchange.client.scope["client"]
    return client[0] if client is not None else None


def _query(exchange: Exchange) -> str:
    return exchange.line.scope["query_string"].decode("ascii")  # type: ignore[no-any-return]


def _path(exchange: Exchange) -> str | None:
    return exchange.line.scope["raw_path"].decode("ascii") or None


def _user(exchange: Exchange) -> str | None:
    """Of Basic authentication (RFC 7617); it can't have the look of two columns."""
    import binascii

    kind, _, code = str(_authorization(exchange)).partition(" ")
    try:
        user = binascii.a2b_base64(code).partition(b":")[0].decode("latin-1")
    except ValueError:
        return None
    return user.replace(" ", "%20") if kind.lower() == "basic" else None


def _request_id(exchange: Exchange) -> str | None:
    try:
        found = exchange.scope["state"].get("request_id")
        return str(found) if found is not None else None
    except Exception:  # whatever an app has made of its scope
        return None


def _standing(exchange: Exchange) -> str:
    if exchange.phase == LOST:
        return "X"
    return "+" if exchange.persistent else "-"


def _request_field(name: str) -> Getter:
    wanted = name.lower().encode()
    return lambda exchange: _value(exchange.scope.get("headers"), wanted)


def _response_field(name: str) -> Getter:
    wanted = name.lower().encode()
    return lambda exchange: _value(getattr(exchange, "response_headers", ()), wanted)


def _value(headers: Any, wanted: bytes) -> str | None:
    try:
        for name, value in headers:
            if name.lower() == wanted:
                return value.decode("latin-1")  # type: ignore[no-any-return]
    except Exception:  # an app may have made anything of them
        pass
    return None


_authorization = _request_field("authorization")

#: gunicorn's atoms, and two more: `id` and, as Apache has it, `X`.
ATOMS: dict[str, Getter] = {
    "h": _client,
    "l": lambda _: None,
    "u": _user,
    "t": lambda _: time.strftime("[%d/%b/%Y:%H:%M:%S %z]"),
    "r": lambda exchange: exchange.line.text,
    "m": lambda exchange: exchange.line.method or None,
    "U": _path,
    "q": _query,
    "H": lambda exchange: f"HTTP/{exchange.line.version}" if exchange.line.version else None,
    "s": lambda exchange: exchange.status or LEFT,
    "b": lambda exchange: exchange.sent or None,
    "B": lambda exchange: exchange.sent,
    "f": _request_field("referer"),
    "a": _request_field("user-agent"),
    "T": lambda exchange: int(_seconds(exchange)),
    "M": lambda exchange: int(_seconds(exchange) * 1e3),
    "D": lambda exchange: int(_seconds(exchange) * 1e6),
    "L": lambda exchange: f"{_seconds(exchange):.6f}",
    "p": lambda _: f"<{os.getpid()}>",
    "id": _request_id,
    "X": _standing,
}
#: Keys of an access line in JSON, and of the records that are made for a user's handlers.
KEYS: dict[str, Getter] = {
    "client": _client,
    "method": ATOMS["m"],
    "path": _path,
    "query": _query,
    "version": lambda exchange: exchange.line.version or None,
    "status": ATOMS["s"],
    "bytes": ATOMS["B"],
    "duration_ms": lambda exchange: int(_seconds(exchange) * 1e6) / 1e3,
    "referer": ATOMS["f"],
    "user_agent": ATOMS["a"],
    "request_id": _request_id,
    "aborted": lambda exchange: exchange.phase == LOST,
}

_COMMON = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s'
PRESETS = {"common": _COMMON, "combined": _COMMON + ' "%(f)s" "%(a)s"'}


# How it is told.


def formatter(config: Config) -> Line:
    """What makes access lines as they are asked for. Raises OptionError."""
    name = config.access_log_format or ("json" if config.log_format == "json" else "default")
    if name == "default":
        return default_line
    if name == "json":
        return _json_line()
    try:
        return _compiled(PRESETS.get(name, name))
    except ValueError as error:
        raise config.wrong("access_log_format", name, str(error)) from None


def _compiled(text: str) -> Line:
    """Lines in a format of gunicorn's. In one that begins with a brace, values are as in JSON.

    Raises ValueError with what a format may be.
    """
    getters: list[Getter] = []

    def replace(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%%"
        if match["atom"] is None:
            found = match[0] + text[match.end() : match.end() + 10]
            raise ValueError(f"a format: {found!r} is no atom")
        getters.append(_getter(match["atom"]))
        return "%s"

    template = re.sub(r"%(?:%|\((?P<atom>[^()]*)\)[sd]|)", replace, text)
    if not getters:
        names = ", ".join(["default", "json", *PRESETS])
        raise ValueError(f"one of {names}, and has no atom")
    if text.startswith("{"):
        encode = _json_encoder()
        return _filled(template, getters, lambda value: encode(_dash(value))[1:-1])
    return _filled(template, getters, _quoted)


def _getter(atom: str) -> Getter:
    if match := re.fullmatch(r"\{([!-z|~]+)\}([ioe])", atom):
        name, kind = match.groups()
        if kind == "e":
            value = os.environ.get(name)
            return lambda exchange: value
        return _request_field(name) if kind == "i" else _response_field(name)
    try:
        return ATOMS[atom]
    except KeyError:
        raise ValueError(f"a format: there is no atom %({atom})s") from None


def _filled(template: str, getters: Sequence[Getter], show: Callable[[Any], str]) -> Line:
    return lambda exchange: template % tuple([show(get(exchange)) for get in getters])


_UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")


def _quoted(value: Any) -> str:
    """For text: nothing in it can end a line or a quotation, or do something to a terminal."""
    return _UNQUOTABLE.sub(_escape, _dash(value))


def _dash(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in '"\\':
        return "\\" + character
    return ascii(character)[1:-1] if character > "\xff" else f"\\x{ord(character):02x}"


def _json_encoder() -> Callable[[str], str]:
    from json.encoder import encode_basestring_ascii  # not before it is needed

    return encode_basestring_ascii


def _json_line() -> Line:
    """Lines with the keys of every line in JSON (`JSONFormatter`), and then KEYS."""
    encode = _json_encoder()
    worker = os.environ.get("TINYASGI_WORKER")
    place = f'"pid":{os.getpid()}' + (f',"worker":{int(worker)}' if worker is not None else "")
    begin = '{"time":%s,"level":"info","logger":"tinyasgi.access","message":%s,' + place
    keys = "".join([f',"{key}":%s' for key in KEYS])
    getters = [lambda _: iso_time(time.time()), ATOMS["r"], *KEYS.values()]

    def show(value: Any) -> str:
        kind = type(value)
        if kind is str:
            return encode(value)
        if kind is int or kind is float:
            return str(value)
        return "null" if value is None else str(value).lower()

    return _filled(begin + keys + "}", getters, show)


# What becomes of it.


def is_enabled() -> bool:
    """Tell whether `tinyasgi.access` itself lets access lines through.

    A level that it inherits is not for them: `--log-level` sets one.
    """
    return logger.level <= logging.INFO > logger.manager.disable and not logger.disabled


def has_handlers() -> bool:
    """Tell whether the user has given a handler to `tinyasgi.access` or `tinyasgi`."""
    return bool(logger.handlers or _package_logger.handlers)


def filtered(exchange: Exchange, line: str) -> str | None:
    """Apply the filters of `tinyasgi.access` to a line; None if one of them drops it."""
    if not logger.filters:
        return line
    values = {key: get(exchange) for key, get in KEYS.items()}
    record = logger.makeRecord(
        logger.name, logging.INFO, __file__, 0, "%s", (line,), None, extra=values
    )
    passed: bool | logging.LogRecord = logger.filter(record)
    if isinstance(passed, logging.LogRecord):  # a filter has replaced it, from Python 3.12 on
        record = passed
    return record.getMessage() if passed else None


def records(config: Config) -> Callable[[Exchange], None]:
    """What makes ordinary log records of exchanges.

    The values of KEYS are in the records, too, for formatters that show them. Raises OptionError.
    """
    make = formatter(config)
    if config.log_format == "json" and config.access_log_format in (None, "json"):
        make = default_line  # its formatter does the rest

    def record(exchange: Exchange) -> None:
        if logger.isEnabledFor(logging.INFO):
            values = {key: get(exchange) for key, get in KEYS.items()}
            logger.info("%s", make(exchange), extra=values)

    return record


def without(config: Config, access: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """The hook for exchanges that are over, without those that are fine and not worth a line."""
    import fnmatch

    patterns = map(fnmatch.translate, config.access_log_exclude)
    matches = re.compile("|".join(patterns)).match

    def log(exchange: Exchange) -> None:
        fine = 200 <= exchange.status < 300 and exchange.phase == COMPLETE
        if not (fine and matches(exchange.line.route)):
            access(exchange)

    return log
