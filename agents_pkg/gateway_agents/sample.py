"""An agent with a tool of its own and one of the gateway's: it tells the weather, and the time.

The forecasts are a table in this file, so it needs no network and always gives the same answer.
"""

from agents import Agent, function_tool

from gateway_core import use_gateway_tool

FORECASTS = {
    "berlin": "12 °C, light rain",
    "london": "14 °C, cloudy",
    "new york": "21 °C, clear sky",
    "paris": "18 °C, sunny",
    "tokyo": "23 °C, humid",
}


# The model learns what a tool is for, and what its arguments mean, from the docstring and the type hints.
@function_tool
def get_weather(city: str) -> str:
    """Tell today's weather in a city.

    Args:
        city: The name of the city, such as Paris.
    """
    forecast = FORECASTS.get(city.strip().casefold())
    if forecast is None:
        return f"There is no forecast for {city}. There is one for {', '.join(FORECASTS).title()}."
    return f"The weather in {city.strip()}: {forecast}."


# No `model=`: whoever runs the agent decides which model answers.
agent = Agent(
    name="SampleAgent",
    handoff_description="Tells the weather.",
    instructions=(
        "You are a friendly weather assistant. Use get_weather for every question about the weather, once for each "
        "city, and answer in one short sentence. If there is no forecast for a city, say so and name the cities "
        "that have one; never guess."
    ),
    # A gateway tool is defined once, for all agents. This agent does without it where there is none.
    tools=[get_weather, use_gateway_tool("current_time", optional=True)],
)
