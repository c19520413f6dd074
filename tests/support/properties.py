"""The number of examples of property tests, and the frame of their state machines."""

import os
from contextlib import ExitStack, suppress

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine

__all__ = ["SimulationMachine", "profile"]


class SimulationMachine(RuleBasedStateMachine):
    """A state machine around a `simulation`, which a rule opens on `stack`."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.is_broken = False
        """A check has failed."""

    def finish(self) -> None:
        """Bring everything to its end, and check the end."""
        raise NotImplementedError

    def teardown(self) -> None:
        if self.is_broken:
            with suppress(AssertionError), self.stack:
                raise AssertionError  # the block of `simulated` fails, too
        with self.stack:
            if hasattr(self, "simulation") and not self.is_broken:
                self.finish()


def profile(examples: int, steps: int = 50) -> settings:
    """Settings for a property test: always the same examples, in a few seconds.

    With PROPERTY_EXAMPLES in the environment it tries so many, different ones each time.
    """
    wanted = os.environ.get("PROPERTY_EXAMPLES")
    shrink = [Phase.shrink] if os.environ.get("PROPERTY_SHRINK", "1") == "1" else []
    return settings(
        max_examples=int(wanted) if wanted else examples,
        derandomize=not wanted,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.explicit, Phase.generate, *shrink],
        suppress_health_check=list(HealthCheck),
    )
