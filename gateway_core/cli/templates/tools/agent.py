"""An agent with tools: functions in this file that the model can call."""

from agents import Agent, function_tool

FORECASTS = {"berlin": "12 °C, light rain", "london": "14 °C, cloudy", "paris": "18 °C, sunny"}


# The docstring and the type hints describe the tool and its arguments to the model.
@function_tool
def get_weather(city: str) -> str:
    """Get today's weather in a city.

    Args:
        city: The name of the city, such as Paris.
    """
    # Replace this by a call to a real service. A tool can also be `async def`.
    forecast = FORECASTS.get(city.strip().casefold())
    return f"The weather in {city}: {forecast}." if forecast else f"There is no forecast for {city}."


@function_tool
def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


agent = Agent(
    name="MyAgent",
    handoff_description="Reports the weather and adds numbers.",
    instructions="Use your tools for the weather and for sums, and answer in one sentence. Never guess.",
    tools=[get_weather, add],
)
