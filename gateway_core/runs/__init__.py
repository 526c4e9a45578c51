"""The only place that starts runs of the Agents SDK."""
