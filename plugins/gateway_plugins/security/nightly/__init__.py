"""`agent-gateway audit`: looks at keys, rules, overrides, files and dependencies, and says what to mend.

It looks only: it changes nothing, and serves nothing.
"""
