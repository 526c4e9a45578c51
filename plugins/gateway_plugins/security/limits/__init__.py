"""Rate limits, concurrency limits and token budgets."""
