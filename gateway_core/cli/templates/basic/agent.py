"""An agent without tools."""

from agents import Agent

agent = Agent(
    name="MyAgent",
    # Shown to users next to the agent's name, and to other agents that may hand off to this one.
    handoff_description="Answers in plain words.",
    instructions="You are a helpful assistant. Answer in plain words, in three sentences or fewer.",
)
