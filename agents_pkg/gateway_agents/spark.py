"""A planner with two tools and a gateway tool: it searches a knowledge base, then writes a plan.

The knowledge base consists of a few notes in this file; replace `search_knowledge` by your own search.
"""

import re

from agents import Agent, function_tool

from gateway_core import use_gateway_tool

KNOWLEDGE = {
    "Launching a service": (
        "Agree on what must work on the first day. Rehearse the rollback before the launch. "
        "Launch to a few users first, and watch errors and latency for a day before you open it to all."
    ),
    "Moving a database": (
        "Copy first, then keep both sides in step, then switch readers, and writers last. "
        "Keep the old database readable for a week. Time a full restore before the day of the move."
    ),
    "Writing documentation": (
        "Start with the reader's first question. Show one example that runs as it stands. "
        "Let a new user follow it without help, and fix every place where they stop."
    ),
    "Handling an incident": (
        "Name one person who leads. Stop the damage before you look for the cause. "
        "Write down times as you go, and hold a review without blame within three days."
    ),
    "Running a workshop": (
        "One goal, at most twelve people, and a break every fifty minutes. "
        "Send the material two days ahead. End with who does what by when."
    ),
}


@function_tool
def search_knowledge(query: str) -> str:
    """Search the knowledge base for advice.

    Args:
        query: A few words on the subject, such as "database move".
    """
    wanted = _words(query)
    # A match in the title of a note is a stronger signal than one in its text.
    scores = {title: 3 * len(wanted & _words(title)) + len(wanted & _words(note)) for title, note in KNOWLEDGE.items()}
    best = sorted((title for title in KNOWLEDGE if scores[title]), key=lambda title: -scores[title])[:2]
    if not best:
        return f"Nothing is known about that. There are notes on: {', '.join(KNOWLEDGE)}."
    return "\n".join(f"{title}: {KNOWLEDGE[title]}" for title in best)


@function_tool
def make_plan(goal: str, steps: list[str]) -> str:
    """Write down a plan as a numbered list.

    Args:
        goal: The goal, in one sentence.
        steps: The steps in order, one short sentence each.
    """
    if not steps:
        return "A plan needs at least one step; call make_plan again with the steps."
    return "\n".join([f"Plan: {goal}", *(f"{number}. {step}" for number, step in enumerate(steps, start=1))])


def _words(text: str) -> set[str]:
    # Words of four or more letters, without a plural s: this skips "the" and matches "services" with "service".
    return {word.removesuffix("s") for word in re.findall(r"[a-z]{4,}", text.lower())}


agent = Agent(
    name="Spark",
    handoff_description="Plans how to reach a goal, with advice from a small knowledge base.",
    instructions=(
        "You are Spark, a planner. When the user names a goal:\n"
        "1. Call search_knowledge with the subject of the goal.\n"
        "2. Call make_plan with the goal and three to seven steps that use what you found.\n"
        "3. Show the plan as make_plan returned it, and say in one sentence what to start with today.\n"
        "Where amounts of time or money have to be added up, call calculate, if you have it.\n"
        "If the goal is unclear, ask one question first. If the knowledge base has no relevant note, tell the user."
    ),
    tools=[search_knowledge, make_plan, use_gateway_tool("calculate", optional=True)],
)
