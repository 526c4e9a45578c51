"""A workflow in the format that Agent Builder exports: the code selects the agents that run, and returns the answer."""

from typing import Literal

from agents import Agent, RunConfig, Runner, TResponseInputItem, trace
from pydantic import BaseModel


class Classification(BaseModel):
    kind: Literal["question", "other"]


classifier = Agent(
    name="Classifier",
    instructions='Classify the message: "question" if it asks for something, else "other".',
    # The model must return this type, so the code can rely on it.
    output_type=Classification,
)

answerer = Agent(
    name="MyAgent",
    instructions="Answer the question in three sentences or fewer. If you do not know, tell the user.",
)


class WorkflowInput(BaseModel):
    input_as_text: str


async def run_workflow(workflow_input: WorkflowInput) -> dict[str, str]:
    """Answers questions, and asks for one if the message contains no question."""
    run_config = RunConfig(trace_metadata={"workflow": "MyAgent"})
    with trace("MyAgent"):
        conversation: list[TResponseInputItem] = [{"role": "user", "content": workflow_input.input_as_text}]
        classified = await Runner.run(classifier, input=conversation, run_config=run_config)
        if classified.final_output_as(Classification).kind == "other":
            return {"output_text": "What would you like to know?"}
        answered = await Runner.run(answerer, input=conversation, run_config=run_config)
        return {"output_text": answered.final_output_as(str)}
