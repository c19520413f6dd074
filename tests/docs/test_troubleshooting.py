"""docs/troubleshooting.md explains every warning and error that the server logs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinyasgi
from tests.support.pages import DOCS

SOURCE = Path(tinyasgi.__file__).parent
#: Methods that log a fault of a peer. The last argument is the message.
PEER_METHODS = ("_give_up", "_log_error", "log_peer_error")
#: The server exits with one of these. Option errors are left out: they explain themselves.
STARTUP_ERRORS = ("LifespanFailed", "ListenError", "LoadError")
PLACEHOLDER = re.compile(r"%(?:\.\d+)?[sdrgf]")


def texts(node: ast.expr, names: dict[str, list[str]]) -> list[str]:
    """Return the possible values of an expression, with … for each part that varies."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [PLACEHOLDER.sub("…", node.value)]
    if isinstance(node, ast.JoinedStr):
        parts = [texts(part, names) for part in node.values]
        return ["".join(part[0] if part else "…" for part in parts)]
    if isinstance(node, ast.IfExp):
        return texts(node.body, names) + texts(node.orelse, names)
    if isinstance(node, ast.Name):
        return names.get(node.id, [])
    return []


def message(call: ast.Call) -> ast.expr | None:
    """Return the message of a call that logs a warning or an error, or makes a startup error."""
    if not call.args:
        return None
    if ast.unparse(call.func).rpartition(".")[2] in STARTUP_ERRORS:
        return call.args[0]
    if not isinstance(call.func, ast.Attribute):
        return None
    is_logger = ast.unparse(call.func.value) == "logger"
    if is_logger and call.func.attr in ("warning", "error", "critical"):
        return call.args[0]
    is_policy = call.func.attr == "_log" and len(call.args) == 2
    if is_policy or (is_logger and call.func.attr == "log"):
        level = call.args[0]
        known = isinstance(level, ast.Name) or re.search("WARNING|ERROR", ast.unparse(level))
        return call.args[1] if known else None
    return call.args[-1] if call.func.attr in PEER_METHODS else None


def logged() -> Iterator[str]:
    """Yield the first line of each message in the source."""
    for path in SOURCE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            names: dict[str, list[str]] = {}
            for node in ast.walk(function):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    names.setdefault(node.targets[0].id, []).extend(texts(node.value, {}))
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and (found := message(node)) is not None:
                    for text in texts(found, names):
                        yield re.sub("…( ?…)+", "…", text.partition("\n")[0])


def explained() -> list[str]:
    """Return the messages in the tables of the page."""
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+)` \|", page.partition("## Log messages")[2], re.M)


def test_every_message_is_explained() -> None:
    found = {text for text in logged() if re.search(r"[a-z]{2}", text)}
    assert len(found) > 20
    assert found - set(explained()) == set(), "explain these in docs/troubleshooting.md"


def test_every_explained_message_exists() -> None:
    constants = " ".join(
        node.value
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    messages = explained()
    assert len(messages) == len(set(messages))
    for text in messages:
        for part in filter(None, map(str.strip, text.split("…"))):
            if part not in constants:
                pytest.fail(f"no longer logged: {text}")
