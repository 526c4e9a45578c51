"""The model behind the conformance tests: it calls the tool that a question needs, and keeps to a schema.

It stands in for a capable model, as far as other projects' test suites rely on one: it calls a tool if it must, or if
the question and the tool's name or description have a word in common, and answers once it has the tool's result.
"""

import json
import re
from typing import Any

from tests.support.upstream import Answer, Call, Json, Request, words


def answer(request: Request) -> Answer:
    """Answer a request of the gateway to its upstream."""
    text = request.user_text
    tool = _needed_tool(request, text)
    if tool is not None:
        return Answer(calls=(Call(tool["name"], json.dumps(_value(tool.get("parameters", {}), text))),))
    schema = _schema(request)
    if schema is not None:
        return Answer(words(json.dumps(_value(schema, text))))
    outputs = [output for each in request.tool_results for output in each]
    return Answer(words(f"I found: {'; '.join(outputs)}" if outputs else "Hello! That is all that I can say."))


def _needed_tool(request: Request, text: str) -> Json | None:
    tools = [tool.get("function", tool) for tool in request.body.get("tools") or ()]
    choice = request.body.get("tool_choice")
    if isinstance(choice, dict):
        name = choice.get("function", choice).get("name")
        return next(tool for tool in tools if tool["name"] == name)
    if choice == "required":
        return max(tools, key=lambda tool: _common_words(tool, text))
    if request.tool_results:
        return None
    return next((tool for tool in tools if _common_words(tool, text)), None)


def _common_words(tool: Json, text: str) -> int:
    def found(given: str) -> set[str]:
        return set(re.findall(r"[a-z]{4,}", given.lower().replace("_", " ")))

    return len(found(tool["name"] + " " + tool.get("description", "")) & found(text))


def _schema(request: Request) -> Json | None:
    wanted = request.body.get("response_format") or {}
    schema: Json | None = wanted.get("json_schema", {}).get("schema")
    if wanted and not (schema and schema.get("properties")):
        # Without a schema, the question names the keys.
        keys = dict.fromkeys(re.findall(r"[`'\"](\w+)[`'\"]", request.user_text)) or ("answer",)
        schema = {"type": "object", "properties": {key: {"type": "string"} for key in keys}}
    return schema


def _value(schema: Json, text: str) -> Any:
    """Return a value that matches a schema, made from the text where possible."""
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _value(schema["anyOf"][0], text)
    match schema.get("type"):
        case "object":
            return {name: _value(each, text) for name, each in schema.get("properties", {}).items()}
        case "array":
            return [_value(schema.get("items", {}), text)]
        case "integer" | "number":
            return int(next(iter(re.findall(r"-?\d+", text)), 1))
        case "boolean":
            return True
        case "null":
            return None
    return next(iter(re.findall(r"'(.+?)'", text)), text)
