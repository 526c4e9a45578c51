"""An agent that hands off the conversation to one of two specialists."""

from agents import Agent
from agents.extensions.handoff_prompt import RECOMMENDED_PROMPT_PREFIX

cook = Agent(
    name="Cook",
    # The model reads this to select the handoff target.
    handoff_description="Suggests recipes and explains how to cook them.",
    instructions=f"{RECOMMENDED_PROMPT_PREFIX}\nSuggest one recipe, with its ingredients and at most six steps.",
)

shopper = Agent(
    name="Shopper",
    handoff_description="Turns dishes into a shopping list.",
    instructions=f"{RECOMMENDED_PROMPT_PREFIX}\nWrite a shopping list, sorted by the aisles of a supermarket.",
)

# The gateway serves the agent named `agent`; the others are reached by handoffs.
agent = Agent(
    name="MyAgent",
    handoff_description="Helps in the kitchen.",
    instructions=(
        f"{RECOMMENDED_PROMPT_PREFIX}\n"
        "Hand off to Cook for recipes and to Shopper for shopping lists. Answer anything else in one sentence."
    ),
    handoffs=[cook, shopper],
)
