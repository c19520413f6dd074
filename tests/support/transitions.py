"""A pytest plugin that checks all transitions of states against the diagrams in docs/design.md."""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from tinyasgi.protocols.connection import Connection
from tinyasgi.protocols.context import Context
from tinyasgi.protocols.exchange import Exchange
from tinyasgi.protocols.states import ConnectionState, Phase, ServerState

__all__ = ["DIAGRAMS", "transitions", "violations"]

PAGE = Path(__file__).parents[2] / "docs" / "design.md"

#: Headings of the diagrams, the states in them, and the attributes that hold such a state.
DIAGRAMS: dict[str, tuple[type[Enum], type, str]] = {
    "Connection": (ConnectionState, Connection, "_state"),
    "Exchange": (Phase, Exchange, "phase"),
    "Server": (ServerState, Context, "_state"),
}

#: Transitions that occurred although no diagram has them.
violations: list[str] = []


def transitions(heading: str) -> set[tuple[str, str]]:
    """Return the arrows of a diagram. `[*]` is the start."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n### {heading}\n")[2]
    diagram = text.partition("```mermaid\n")[2].partition("```")[0]
    return set(re.findall(r"^ +(\S+) --> (\w+)", diagram, re.MULTILINE))


class Checked:
    """Replaces the slot of an attribute and checks each change of its value."""

    def __init__(self, heading: str, slot: Any) -> None:
        self._heading = heading
        self._slot = slot
        self._allowed = transitions(heading)

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else self._slot.__get__(instance, owner)

    def __set__(self, instance: Any, state: Enum) -> None:
        try:
            before = self._slot.__get__(instance, type(instance)).name
        except AttributeError:
            before = "[*]"
        arrow = before, state.name
        if before != state.name and arrow not in self._allowed:
            violations.append(f"{self._heading}: {before} --> {state.name}")
        self._slot.__set__(instance, state)


def pytest_configure() -> None:
    for heading, (_, owner, name) in DIAGRAMS.items():
        setattr(owner, name, Checked(heading, vars(owner)[name]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    violations.clear()
    yield
    assert sorted(set(violations)) == []
