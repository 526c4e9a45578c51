"""An agent with an input guardrail: a message that asks for a secret is stopped before it reaches a model.

The guardrail is plain code and calls no model. It is an example, not complete protection.
"""

import re
from typing import Any

from agents import Agent, GuardrailFunctionOutput, RunContextWrapper, TResponseInputItem, input_guardrail

ASKS_FOR_A_SECRET = re.compile(
    r"\b(what(?:'s| is| are)|which|give|tell|show|send|share|reveal|print|list)\b[^.?!\n]{0,60}"
    r"\b(passwords?|passphrases?|api[ _-]?keys?|secret keys?|private keys?|access tokens?|credentials)\b",
    re.IGNORECASE,
)


# With run_in_parallel=False, the model is called only after the guardrail has passed.
@input_guardrail(run_in_parallel=False)
def no_secrets(
    _context: RunContextWrapper[Any], _agent: Agent[Any], input: str | list[TResponseInputItem]
) -> GuardrailFunctionOutput:
    """Trip when the newest message asks for a password, a key or a token."""
    found = ASKS_FOR_A_SECRET.search(newest_user_text(input))
    return GuardrailFunctionOutput(
        output_info={"asks_for": found[2] if found else None}, tripwire_triggered=bool(found)
    )


def newest_user_text(input: str | list[TResponseInputItem]) -> str:
    """Return the text of the last user message.

    Chat clients send the whole conversation with each request. Checking all of it would stop every message after a bad
    one.
    """
    if isinstance(input, str):
        return input
    for item in reversed(input):
        if item.get("role") == "user":
            content: Any = item.get("content")
            # Either a string, or a list of parts, of which only some are text.
            return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
    return ""


agent = Agent(
    name="Guarded",
    handoff_description="Gives advice on staying safe online, and refuses to talk about actual secrets.",
    instructions=(
        "You give short, practical advice on staying safe online: passphrases, updates, phishing, backups. "
        "Never ask the user for a secret, and never repeat one."
    ),
    input_guardrails=[no_secrets],
)
