"""A module loaded by path finds its own helpers, and touches nobody else's modules."""

import gc
import inspect
import pickle
import sys
import threading
import traceback
import weakref

import pytest

from gateway_core.isolation import load_isolated


@pytest.fixture
def write(tmp_path):
    def write(**files):
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def load(folder, main="agent", **options):
    return load_isolated(folder / f"{main}.py", folder=folder, name=folder.name, **options)


@pytest.mark.parametrize(
    "statement",
    [
        "from .tools import value",
        "from tools import value",
        "from tools import *",
        "from . import tools; value = tools.value",
        "import tools; value = tools.value",
        "import tools as t; value = t.value",
        "import os, tools; value = tools.value",
        "import sub.deep; value = sub.deep.value",
        "import sub.deep as d; value = d.value",
        "from sub import deep; value = deep.value",
        "from sub.deep import value",
        "from .sub.deep import value",
        "try:\n    import tools\nexcept ImportError:\n    raise\nvalue = tools.value",
    ],
)
def test_every_way_to_import_a_sibling(write, statement):
    folder = write(agent=statement, tools="value = 1", sub__deep="value = 1")
    assert load(folder).module.value == 1


def test_siblings_find_each_other_from_anywhere(write):
    folder = write(agent="from sub.deep import value", sub__deep="import tools\nvalue = tools.value", tools="value = 2")
    assert load(folder).module.value == 2


def test_lazy_imports_work_long_after_the_load_and_in_other_threads(write):
    module = load(write(agent="def later():\n    from tools import value\n    return value", tools="value = 3")).module
    seen = []
    thread = threading.Thread(target=lambda: seen.append(module.later()))
    thread.start()
    thread.join(10)
    assert seen == [3]


def test_two_modules_may_have_helpers_of_the_same_name(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "agent.py").write_text("import tools\nvalue = tools.value")
        (tmp_path / name / "tools.py").write_text(f"value = {name!r}")
    loaded = [load(tmp_path / name).module.value for name in ("one", "two")]
    assert loaded == ["one", "two"]
    assert "tools" not in sys.modules


def test_the_sdk_and_the_standard_library_are_never_hidden(write):
    folder = write(
        agent="import agents, json\nfrom agents import Agent\nvalue = json.dumps(1)",
        agents="raise OSError",
        json="boom",
    )
    module = load(folder).module
    assert module.agents.__name__ == "agents"
    assert module.value == "1"


def test_nothing_goes_on_sys_path_and_no_bytecode_is_written(write):
    before = list(sys.path)
    folder = write(agent="import tools", tools="")
    load(folder)
    assert sys.path == before
    assert not list(folder.rglob("__pycache__"))


def test_a_single_file_has_no_siblings(write):
    folder = write(quick="value = 1", tools="")
    assert load_isolated(folder / "quick.py", folder=None, name="quick").module.value == 1
    (folder / "quick.py").write_text("import tools")
    with pytest.raises(ModuleNotFoundError, match="tools"):
        load_isolated(folder / "quick.py", folder=None, name="quick")


def test_a_package_is_loaded_as_one(write):
    folder = write(tools="value = 4")
    (folder / "__init__.py").write_text("from .tools import value\nfrom . import tools")
    module = load(folder, "__init__").module
    assert module.value == 4
    assert module.__path__


def test_shared_helpers_are_a_private_copy_for_each(tmp_path):
    (tmp_path / "_shared").mkdir()
    (tmp_path / "_shared" / "state.py").write_text("seen = []")
    modules = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "agent.py").write_text("from _shared.state import seen\nseen.append(1)")
        modules.append(load(tmp_path / name, shared=tmp_path).module)
    assert [module.seen for module in modules] == [[1], [1]]


def test_a_relative_import_cannot_leave_the_folder(write):
    with pytest.raises(ImportError, match="beyond top-level"):
        load(write(agent="from ..other import x"))


@pytest.mark.parametrize(
    ("text", "error"), [("1/0", ZeroDivisionError), ("def", SyntaxError), ("raise SystemExit(3)", SystemExit)]
)
def test_a_failed_load_raises_the_authors_own_error_and_leaves_nothing(write, text, error):
    folder = write(agent="import tools", tools=text)
    before = set(sys.modules)
    with pytest.raises(error):
        load(folder)
    assert not [name for name in set(sys.modules) - before if name.startswith("gateway_agent_")]


def test_tracebacks_and_sources_are_the_authors(write):
    module = load(write(agent="import tools\n\n\ndef fail():\n    return 1 / 0\n", tools="")).module
    with pytest.raises(ZeroDivisionError) as caught:
        module.fail()
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.lineno, frame.line) == (5, "return 1 / 0")
    assert inspect.getsource(module.fail) == "def fail():\n    return 1 / 0\n"


def test_classes_can_be_pickled_and_hints_resolved_while_it_is_loaded(write):
    head = "from __future__ import annotations\nimport dataclasses\n"
    module = load(write(agent=head + "@dataclasses.dataclass\nclass A:\n    x: A | None = None")).module
    assert pickle.loads(pickle.dumps(module.A())) == module.A()
    assert inspect.get_annotations(module.A, eval_str=True) == {"x": module.A | None}


def test_main_guards_do_not_run_and_encodings_are_read(tmp_path):
    (tmp_path / "agent.py").write_bytes("# -*- coding: latin-1 -*-\nvalue = 'é'\n".encode("latin-1"))
    assert load(tmp_path).module.value == "é"
    (tmp_path / "agent.py").write_bytes(b"\xef\xbb\xbfif __name__ == '__main__':\n    raise OSError\nvalue = 1")
    assert load(tmp_path).module.value == 1


def test_unloading_frees_every_generation(write):
    folder = write(agent="import tools\nclass Thing: pass", tools="class Helper: pass")
    alive = weakref.WeakSet()
    gc.collect()
    before = len(sys.modules)
    for _ in range(200):
        loaded = load(folder)
        alive.add(loaded.module.Thing)
        alive.add(loaded.module.tools.Helper)
        loaded.unload()
        loaded.unload()
    del loaded
    gc.collect()
    assert len(alive) == 0
    assert len(sys.modules) == before


def test_a_new_version_is_what_is_loaded_next(write):
    folder = write(agent="from tools import value", tools="value = 1")
    first = load(folder)
    write(tools="value = 2")
    assert (first.module.value, load(folder).module.value) == (1, 2)
