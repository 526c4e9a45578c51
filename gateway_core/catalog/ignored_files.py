"""Recognizes hidden, temporary and runtime files by name, so that they do not count as part of an agent.

It matches file names only and does not access the file system.
"""

import re

# Editors' swap and backup files, vim's write probe (4913), partial downloads and copies, and files that a running agent
# writes to its folder: logs and databases. Ignoring a database shipped with an agent is safe: the agent reads it when
# it opens it.
_IGNORED = re.compile(
    r"\..*|.*~|#.*#|4913|.*\.(swp|swo|swx|tmp|temp|bak|orig|part|partial|crdownload|pyc|pyo|log|pid|lock)"
    r"|.*\.(db|sqlite3?)(-wal|-shm|-journal)?|.*___jb_(tmp|old)___"
)


def is_ignored_file(name: str) -> bool:
    """Whether a file name (without its folders) is that of a hidden, temporary or runtime file."""
    return _IGNORED.fullmatch(name) is not None
