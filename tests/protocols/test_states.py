"""The diagrams in docs/design.md, and the check that tests make no other transition."""

import asyncio
from enum import Enum

import pytest

from tests.support.helpers import hello
from tests.support.transitions import DIAGRAMS, transitions, violations
from tinyasgi import Config
from tinyasgi.protocols.context import Context
from tinyasgi.protocols.states import ServerState
from tinyasgi.protocols.timeouts import timeouts


@pytest.mark.parametrize("heading", DIAGRAMS)
def test_diagrams_have_all_states(heading: str) -> None:
    states: type[Enum] = DIAGRAMS[heading][0]
    arrows = transitions(heading)
    assert {end for arrow in arrows for end in arrow} - {"[*]"} == set(states.__members__)


@pytest.mark.parametrize("heading", ["Exchange", "Server"])
def test_ordered_states_only_grow(heading: str) -> None:
    states = DIAGRAMS[heading][0]
    # After a part of a file, more body may follow.
    for before, after in transitions(heading) - {("SENDING_FILE", "STREAMING")}:
        assert before == "[*]" or states[before].value < states[after].value


def test_each_connection_state_has_a_timeout() -> None:
    assert set(timeouts(Config())) == set(DIAGRAMS["Connection"][0])


def test_illegal_transition_is_noticed() -> None:
    async def test() -> None:
        context = Context(hello, Config(), asyncio.get_running_loop())
        for state in (ServerState.LEAVING, ServerState.OVERDUE):
            context.enter(state)

    asyncio.run(test())
    assert violations == ["Server: LEAVING --> OVERDUE"]
    violations.clear()
