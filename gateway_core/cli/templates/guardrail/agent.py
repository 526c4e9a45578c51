"""An agent with a guardrail: a message with a payment card number is stopped before it reaches a model."""

import re
from typing import Any

from agents import Agent, GuardrailFunctionOutput, RunContextWrapper, TResponseInputItem, input_guardrail

CARD_NUMBER = re.compile(r"\b\d(?:[ -]?\d){12,18}\b")


# With run_in_parallel=False, the model is called only after the guardrail has passed.
@input_guardrail(run_in_parallel=False)
def no_card_numbers(
    _context: RunContextWrapper[Any], _agent: Agent[Any], input: str | list[TResponseInputItem]
) -> GuardrailFunctionOutput:
    """Trip when the conversation contains a number that looks like a payment card number."""
    # Check the whole conversation, because the model receives all of it.
    text = input if isinstance(input, str) else " ".join(str(item.get("content")) for item in input)
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=bool(CARD_NUMBER.search(text)))


agent = Agent(
    name="MyAgent",
    handoff_description="Answers questions about orders, and accepts no card numbers.",
    instructions="You answer questions about orders. Never ask for payment details.",
    input_guardrails=[no_card_numbers],
)
