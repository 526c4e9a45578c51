"""What the nightly audit says: findings, each with how bad it is and what to do.

It looks at nothing itself.
"""

import enum
from typing import Any

from attrs import frozen


class Severity(enum.IntEnum):
    """How bad it is. The value is the command's exit status."""

    INFO = 0
    LOW = 10
    MEDIUM = 20
    HIGH = 30
    CRITICAL = 40


@frozen
class Finding:
    """One thing that an operator should know."""

    severity: Severity
    check: str
    """Which check says so, such as `key_expired`."""
    subject: str
    """What it is about: a table of the settings, a file, a package."""
    message: str
    hint: str | None = None

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {
            "severity": self.severity.name.lower(),
            "check": self.check,
            "subject": self.subject,
            "message": self.message,
            "hint": self.hint,
        }
