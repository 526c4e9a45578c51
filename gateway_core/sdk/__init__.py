"""Process-wide state of the OpenAI Agents SDK: settings that are saved and restored, and patches."""
