"""An agent with a guardrail: a message with a payment card's number is stopped before any model sees it."""

import re
from typing import Any

from agents import Agent, GuardrailFunctionOutput, RunContextWrapper, TResponseInputItem, input_guardrail

CARD_NUMBER = re.compile(r"\b\d(?:[ -]?\d){12,18}\b")


# run_in_parallel=False: the model is asked only after the guardrail let the message pass.
@input_guardrail(run_in_parallel=False)
def no_card_numbers(
    _context: RunContextWrapper[Any], _agent: Agent[Any], input: str | list[TResponseInputItem]
) -> GuardrailFunctionOutput:
    """Trip when something in the conversation looks like the number of a payment card."""
    # All of the conversation, because all of it goes to the model.
    text = input if isinstance(input, str) else " ".join(str(item.get("content")) for item in input)
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=bool(CARD_NUMBER.search(text)))


agent = Agent(
    name="MyAgent",
    handoff_description="Answers questions about orders, and accepts no card numbers.",
    instructions="You answer questions about orders. Never ask for payment details.",
    input_guardrails=[no_card_numbers],
)
