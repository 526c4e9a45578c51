"""An agent that hands the conversation over to one of two specialists."""

from agents import Agent
from agents.extensions.handoff_prompt import RECOMMENDED_PROMPT_PREFIX

cook = Agent(
    name="Cook",
    # The model uses this to select the agent to hand off to.
    handoff_description="Suggests recipes and explains how to cook them.",
    instructions=f"{RECOMMENDED_PROMPT_PREFIX}\nSuggest one recipe, with its ingredients and at most six steps.",
)

shopper = Agent(
    name="Shopper",
    handoff_description="Turns dishes into a shopping list.",
    instructions=f"{RECOMMENDED_PROMPT_PREFIX}\nWrite a shopping list, sorted by the aisles of a supermarket.",
)

# The variable `agent` is served. The other agents are reached through handoffs.
agent = Agent(
    name="MyAgent",
    handoff_description="Helps in the kitchen.",
    instructions=(
        f"{RECOMMENDED_PROMPT_PREFIX}\n"
        "Hand off to Cook for recipes and to Shopper for shopping lists. Answer anything else in one sentence."
    ),
    handoffs=[cook, shopper],
)
