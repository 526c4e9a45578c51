"""An agent with its own tool and a gateway tool: it reports the weather and the time.

The forecasts are a table in this file, so the agent needs no network and its answers are deterministic.
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


# The docstring and the type hints describe the tool and its arguments to the model.
@function_tool
def get_weather(city: str) -> str:
    """Get today's weather in a city.

    Args:
        city: The name of the city, such as Paris.
    """
    forecast = FORECASTS.get(city.strip().casefold())
    if forecast is None:
        return f"There is no forecast for {city}. There is one for {', '.join(FORECASTS).title()}."
    return f"The weather in {city.strip()}: {forecast}."


# No `model=`: the configuration of the gateway selects the model.
agent = Agent(
    name="SampleAgent",
    handoff_description="Answers questions about the weather.",
    instructions=(
        "You are a friendly weather assistant. Use get_weather for every question about the weather, once for each "
        "city, and answer in one short sentence. If there is no forecast for a city, tell the user, and name the "
        "cities that have one; never guess."
    ),
    # A gateway tool is defined once, for all agents. It is optional here: without it, the agent still works.
    tools=[get_weather, use_gateway_tool("current_time", optional=True)],
)
