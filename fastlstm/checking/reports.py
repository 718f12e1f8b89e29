"""What all reports on gradients offer."""

from __future__ import annotations

import dataclasses
from typing import Any, cast


class Report:
    """What all reports on gradients offer: dataclasses with a result for each of the ``parameters``."""

    parameters: tuple[Any, ...]

    @property
    def passed(self) -> bool:
        """Whether every parameter passed."""
        return all(parameter.passed for parameter in self.parameters)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, ready for JSON."""
        return {"passed": self.passed, **dataclasses.asdict(cast(Any, self))}
