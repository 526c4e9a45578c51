"""Who may use what: keys, rules, overrides, limits and the record of what was decided.

It trusts no client and no agent, and what it cannot decide it refuses.
"""
