"""How many examples property tests try."""

import os

from hypothesis import HealthCheck, Phase, settings

__all__ = ["profile"]


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
