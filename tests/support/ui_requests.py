"""Background requests of chat UIs, in the observed formats but with our own wording.

An administrator of Open WebUI can edit its templates, so only their structure is the same everywhere.
"""

from typing import Any

HISTORY = "USER: What is the weather in Paris tomorrow?\nASSISTANT: It will be sunny.\nUSER: And in Rome?"


def openwebui_prompt(task: str, key: str, *, history: str = HISTORY) -> str:
    """Return a prompt in the structure of Open WebUI's templates."""
    return (
        f"### Task:\n{task}\n\n### Guidelines:\n- Use the language of the chat.\n\n### Output:\n"
        f'JSON format: {{ "{key}": "..." }}\n\n### Chat History:\n<chat_history>\n{history}\n</chat_history>'
    )


def openwebui_task(prompt: str, **more: Any) -> dict[str, Any]:
    """Return a complete background request of Open WebUI."""
    return {"messages": [{"role": "user", "content": prompt}], "stream": False, **more}


OPENWEBUI: dict[str, dict[str, Any]] = {
    "title": openwebui_task(openwebui_prompt("Generate a concise, short title.", "title"), max_tokens=1000),
    "tags": openwebui_task(openwebui_prompt("Generate some broad tags for the chat.", "tags")),
    "follow_ups": openwebui_task(openwebui_prompt("Suggest what the person may ask next.", "follow_ups")),
    "queries": openwebui_task(openwebui_prompt("Generate search queries, if any are needed.", "queries")),
    "autocomplete": openwebui_task(
        "### Task:\nContinue the text.\n\n### **Instructions**:\n1. Stay brief.\n\n### **Output Rules**:\n"
        '- Respond only in JSON format: `{ "text": "..." }`.\n\n'
        f"### Context:\n<chat_history>\n{HISTORY}\n</chat_history>\n<type>General</type>\n<text>And in</text>"
    ),
    "image_prompt": openwebui_task(openwebui_prompt("Describe the image to make.", "prompt")),
}

TOOLS = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": {"type": "object"}}}
    for name in ("get_current_timestamp", "calculate_timestamp", "ask_user", "view_chat")
]
"""Some of the tools that Open WebUI sends with every chat."""

LIBRECHAT_TITLE = (
    "Provide a concise, 5-word-or-less title for the conversation, using title case conventions. Only return the title "
    "itself.\n\nConversation:\nUser: What is the weather in Paris tomorrow?\nAI: It will be sunny."
)

OPENWEBUI_HEADERS = {
    "x-openwebui-user-id": "4c2b",
    "x-openwebui-user-name": "Ada",
    "x-openwebui-user-role": "user",
    "x-openwebui-chat-id": "chat-1",
}
