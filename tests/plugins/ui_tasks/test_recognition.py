"""Detection of background requests of chat UIs, without false positives for user messages."""

import json

import pytest
from gateway_plugins.ui_tasks.answers import local_answer
from gateway_plugins.ui_tasks.recognition import Task, by_header, by_prompt

from tests.support.ui_requests import HISTORY, LIBRECHAT_TITLE, OPENWEBUI, openwebui_prompt

HEADERS = ["x-openwebui-task"]


@pytest.mark.parametrize("kind", OPENWEBUI)
def test_open_webui_requests_are_detected(kind):
    assert by_prompt(OPENWEBUI[kind]["messages"], stream=False) == Task(kind)


def test_the_quoted_conversation_is_ignored():
    prompt = openwebui_prompt("Generate tags.", "tags", history='USER: write { "title": "x" }')
    assert by_prompt([{"role": "user", "content": prompt}], stream=False) == Task("tags")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("title_generation", "title"),
        ("TAGS_GENERATION", "tags"),
        ("follow_up_generation", "follow_ups"),
        ("query_generation", "queries"),
        ("emoji_generation", "emoji"),
        ("title", "title"),
        ("", None),
        ("{{TASK}}", None),
        ("moa_response_generation", None),
        ("default", None),
    ],
)
def test_a_header_names_the_task(value, kind):
    task = by_header({"x-openwebui-task": value}, HEADERS)
    assert (task.kind if task else None) == kind


def test_librechat_titles_are_detected_streamed_or_not():
    messages = [{"role": "user", "content": LIBRECHAT_TITLE}]
    assert by_prompt(messages, stream=True) == by_prompt(messages, stream=False) == Task("title", "text")


@pytest.mark.parametrize(
    "text",
    [
        "Generate a concise, 3-5 word title with an emoji summarizing the chat history.",
        'Give me a title for my essay about Paris. JSON format: { "title": "..." }',
        '### Task:\nGenerate a title for my essay.\n### Output:\nJSON format: { "title": "..." }',
        "### Task:\nSummarize this.\n<chat_history>\nUSER: hi\n</chat_history>",
        'Here is a prompt:\n### Task:\nx\n### Output:\n{ "title": "" }\n<chat_history>\n</chat_history>',
        "Provide a concise, 5-word-or-less title for the conversation between Romeo and Juliet.",
        "Your task is to reflect the speaker's likely facial expression through a fitting emoji. Ok?",
        "title",
        "",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_user_asking_for_a_title_gets_the_agent(text, stream):
    assert by_prompt([{"role": "user", "content": text}], stream=stream) is None


def test_a_chat_is_not_a_task_even_if_it_quotes_one():
    task = OPENWEBUI["title"]["messages"][0]
    assert by_prompt([task], stream=True) is None, "Open WebUI streams user messages"
    assert (
        by_prompt([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}, task], stream=False)
        is None
    )
    assert by_prompt([], stream=False) is None
    assert by_prompt(["no object"], stream=False) is None


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("title", {"title": "What is the weather in Paris"}),
        ("tags", {"tags": ["General"]}),
        ("follow_ups", {"follow_ups": []}),
        ("queries", {"queries": ["What is the weather in Paris tomorrow?"]}),
        ("autocomplete", {"text": ""}),
        ("image_prompt", {"prompt": "What is the weather in Paris tomorrow?"}),
    ],
)
def test_local_answers_have_the_expected_format(kind, answer):
    assert json.loads(local_answer(Task(kind), OPENWEBUI[kind]["messages"][0]["content"])) == answer


def test_local_answers_as_text():
    assert local_answer(Task("title", "text"), LIBRECHAT_TITLE) == "What is the weather in Paris"
    assert local_answer(Task("emoji", "text"), None) == "💬"


@pytest.mark.parametrize("prompt", [None, "", "x" * 100_000, "<chat_history>", HISTORY])
def test_any_prompt_has_an_answer(prompt):
    assert len(json.loads(local_answer(Task("title"), prompt))["title"]) <= 60
