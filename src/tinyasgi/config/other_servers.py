"""Options of uvicorn and gunicorn: their names here, or what to write instead."""

import re
from collections.abc import Mapping
from typing import Any

from ..errors import did_you_mean
from .kinds import FLAG_WORDS, OptionError, Spelling

#: Options of uvicorn that have another name here.
RENAMED = {
    "reload_dirs": "reload_dir",
    "reload_includes": "reload_include",
    "reload_excludes": "reload_exclude",
    "headers": "header",
    "h11_max_incomplete_event_size": "limit_head_size",
}

#: Options of uvicorn without a counterpart: the values that are accepted, separated by spaces, and
#: what to write instead of other values, or why they are refused.
WITHOUT_MEANING = {
    "reload_delay": ("None 0.25", "there is no delay: changes are noticed when they happen"),
    "timeout_notify": ("None 30", "there is no such callback: start a task in lifespan startup"),
    "callback_notify": ("None", "there is no such callback: start a task in lifespan startup"),
    "timeout_worker_healthcheck": ("None 5", "write --worker-timeout"),
    "ssl_version": ("None 2 16 17", "write --ssl-min-version"),
    "reset_contextvars": ("None False", "each request already has its own copy of the context"),
}

#: Short options of gunicorn.
SHORT = {
    "bind": "-b",
    "workers": "-w",
    "pid": "-p",
    "user": "-u",
    "group": "-g",
    "umask": "-m",
    "name": "-n",
}

#: Values of gunicorn's `--proxy-protocol`. Here each of them accepts both versions.
PROXY_PROTOCOL = ("auto", "v1", "v2")

#: Patterns of options of gunicorn, and what to write instead.
HINTS = {
    "-c": "write --config FILE; it is TOML, not Python",
    "-D --daemon": "use systemd, a container or nohup",
    "-e --env": "set the variable before the command, or write --env-file",
    "-k --worker-class": "leave it out: all workers serve ASGI, and WSGI in threads",
    "-R --enable-stdio-inheritance": "leave it out: workers always inherit stdout and stderr",
    "-t --timeout": "write --worker-timeout",
    "-v": "write --version",
    "--access-logfile": "write --access-log-file; the access log is on by default",
    "--access-logformat": "write --access-log-format",
    "--asgi-disconnect-grace-period": "write --cancel-on-disconnect",
    "--asgi-lifespan": "write --lifespan",
    "--asgi-loop": "write --loop",
    "--ca-certs": "write --ssl-ca-certs",
    "--cert-reqs": "write --ssl-cert-reqs",
    "--certfile": "write --ssl-certfile",
    "--check-config": "write --check",
    "--ciphers": "write --ssl-ciphers",
    "--control-socket* --no-control-socket": "leave it out: control the server with signals",
    "--dirty-*": "run such work in processes of the app",
    "--disable-redirect-access-to-syslog": "leave it out: there is no redirection to syslog",
    "--do-handshake-on-connect --suppress-ragged-eofs": "leave it out: it is always on",
    "--dogstatsd-tags --enable-backlog-metric --statsd-*": "write --metrics-bind, for Prometheus",
    "--error-logfile --log-file": "write --error-log-file",
    "--forwarder-headers --header-map": "leave it out: X_Y can't be mistaken for X-Y",
    "--graceful-timeout": "write --timeout-graceful-shutdown",
    "--http-parser": "write --http",
    "--http-protocols --http2-*": "leave it out, or write --no-http2",
    "--initgroups": "leave it out: --user also sets the groups of the user",
    "--keep-alive": "write --timeout-keep-alive",
    "--keyfile": "write --ssl-keyfile",
    "--limit-request-field_size --limit-request-line": "write --limit-head-size",
    "--limit-request-fields": "write --limit-head-fields",
    "--log-config-json --logger-class": "write --log-config",
    "--log-syslog*": "write --log-config, with a SysLogHandler in the file",
    "--max-requests": "write --limit-max-requests",
    "--max-requests-jitter": "write --limit-max-requests-jitter",
    "--no-sendfile": "leave it out",
    "--paste*": "write a module that calls paste.deploy.loadapp",
    "--permit-* --casefold-http-method --strip-header-spaces": "leave it out",
    "--protocol --uwsgi-allow-from": "leave it out, and let the proxy speak HTTP",
    "--proxy-allow-from": "write --forwarded-allow-ips",
    "--pythonpath": "write --app-dir",
    "--reload-engine": "leave it out: watchfiles is used if it is installed",
    "--reload-extra-file": "write --reload-include",
    "--reuse-port": "leave it out: on Linux each worker has its own accept queue",
    "--spew": "run python -m trace, or write --debug-blocking",
    "--threads": "write --wsgi-threads",
    "--websocket-max-message-size": "write --ws-max-size",
    "--worker-connections": "write --limit-connections",
    "--worker-tmp-dir": "leave it out: workers need no files",
}


class Translated(type):
    """Metaclass whose classes also accept uvicorn's names of options in their constructor."""

    def __call__(cls, **options: Any) -> Any:
        known: Mapping[str, Any] = cls.__dataclass_fields__  # type: ignore[attr-defined]
        if not options.keys() <= known.keys():
            options = translate(options, known)
        return super().__call__(**options)


def translate(options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Replace uvicorn's names of options by those of tinyasgi. Raises OptionError."""
    found = {}
    for name, value in options.items():
        if (new := RENAMED.get(name, name)) in known:
            found[new] = value
        elif name in WITHOUT_MEANING:
            check(Spelling(name), name, value)
        else:
            raise unknown_option(name, name, list(known))
    return found


def check(spelling: Spelling, name: str, value: Any) -> None:
    """Raise OptionError if a value of an option of WITHOUT_MEANING would change something."""
    harmless, reason = WITHOUT_MEANING[name]
    number = isinstance(value, int) and not isinstance(value, bool)  # or an IntEnum
    if str(int(value) if number else value) not in harmless.split():
        raise OptionError(f"{spelling.given(value)}: {_like(spelling.name, reason)}")


def flag_value(name: str, text: str) -> bool | None:
    """Return the value that a word gives to a flag of the command line; None: it is no value."""
    if name == "--proxy-protocol" and text.lower() in PROXY_PROTOCOL:
        return True
    return FLAG_WORDS.get(text.lower())


def unknown_option(shown: str, name: str, known: list[str]) -> OptionError:
    """Return the error for an unknown option, with a hint at the option to use instead."""
    hint = _hint(name)
    text = f"; {hint}" if hint else did_you_mean(name, known) or "; see tinyasgi --help"
    return OptionError(f"unknown option {shown}{text}")


def _hint(name: str) -> str:
    """Return what to write instead of an option of gunicorn, or an empty string."""
    from fnmatch import fnmatchcase  # only for errors

    option = name if name.startswith("-") else "--" + name.replace("_", "-")
    short = option[: 1 if option.startswith("--") else 2]  # of `-t30`
    for patterns, text in HINTS.items():
        for pattern in patterns.split():
            if fnmatchcase(option, pattern) or short == pattern:
                return _like(name, text)
    return ""


def _like(name: str, text: str) -> str:
    """Write the options in a text in the style of `name`: `--ssl-keyfile` or `ssl_keyfile`."""
    if name.startswith("-"):
        return text
    dash = "-" if "-" in name else "_"
    return re.sub(r"--(\w[\w-]*)", lambda match: match[1].replace("-", dash), text)
