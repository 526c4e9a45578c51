"""Which files come and go while people and programs work, and so are no part of an agent?

It knows names only: nothing here looks at a file.
"""

import re

# Editors' swap and backup files and the probe that vim writes, unfinished downloads and copies, and what a running
# agent writes beside itself: logs and databases. A database that came with an agent is read when it is opened.
_IGNORED = re.compile(
    r"\..*|.*~|#.*#|4913|.*\.(swp|swo|swx|tmp|temp|bak|orig|part|partial|crdownload|pyc|pyo|log|pid|lock)"
    r"|.*\.(db|sqlite3?)(-wal|-shm|-journal)?|.*___jb_(tmp|old)___"
)


def is_ignored_file(name: str) -> bool:
    """Whether a file of this name (without its folders) is hidden, temporary, or written by what runs."""
    return _IGNORED.fullmatch(name) is not None
