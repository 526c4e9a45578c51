"""The same agent as in baseline.py."""

from agents import Agent, function_tool


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"18 degrees in {city}"


agent = Agent(name="Bench", instructions="You are helpful.", model="bench", tools=[get_weather])
