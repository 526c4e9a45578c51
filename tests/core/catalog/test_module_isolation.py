"""A module loaded by path finds its own helpers and does not affect other modules."""

import gc
import inspect
import os
import pickle
import py_compile
import sys
import threading
import traceback
import weakref
from pathlib import Path
from types import ModuleType

import pytest

from gateway_core.catalog.module_isolation import load_isolated


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


def test_the_sdk_and_the_standard_library_are_never_shadowed(write):
    folder = write(
        agent="import agents, json\nfrom agents import Agent\nvalue = json.dumps(1)",
        agents="raise OSError",
        json="boom",
    )
    module = load(folder).module
    assert module.agents.__name__ == "agents"
    assert module.value == "1"


def test_sys_path_is_not_modified_and_no_bytecode_is_written(write):
    before = list(sys.path)
    folder = write(agent="import tools", tools="")
    load(folder)
    assert sys.path == before
    assert not list(folder.rglob("__pycache__"))


def test_a_single_file_has_no_siblings(write):
    folder = write(quick="value = 1", tools="")
    assert load_isolated(folder / "quick.py", folder=None, name="quick").module.value == 1
    for statement in ("import tools", "from .tools import __name__", "import tools as t"):
        (folder / "quick.py").write_text(statement)
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
def test_a_failed_load_raises_the_modules_error_and_is_removed(write, text, error):
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


def test_the_next_load_uses_the_new_version(write):
    folder = write(agent="from tools import value", tools="value = 1")
    first = load(folder)
    write(tools="value = 2")
    assert (first.module.value, load(folder).module.value) == (1, 2)


def test_module_attributes_are_set(write):
    folder = write(agent="import sub.deep", sub__deep="from ..tools import value", tools="value = 1")
    loaded = load(folder)
    module = loaded.module
    assert module.__name__ == module.__spec__.name == f"{loaded.package}.agent"
    assert module.__package__ == module.__spec__.parent == loaded.package
    assert module.__file__ == str(folder / "agent.py")
    assert sys.modules[module.__name__] is module
    assert list(module.sub.__path__) == [str(folder / "sub")]
    assert module.sub.deep.__package__ == f"{loaded.package}.sub"


@pytest.mark.parametrize("name", ["labs/Research", "1 a.b-c", "日本", ".."])
def test_any_id_makes_a_private_name(write, name):
    loaded = load_isolated(write(agent="") / "agent.py", folder=None, name=name)
    assert loaded.package.isidentifier()
    assert loaded.package in sys.modules


def test_a_file_may_be_called_anything(write):
    folder = write(**{"my-agent.v2": "value = 1"})
    assert load_isolated(folder / "my-agent.v2.py", folder=None, name="x").module.value == 1


def test_a_sibling_shadows_an_installed_package_for_this_module_only(write):
    import attrs

    folder = write(agent="import attrs\nvalue = attrs.value", attrs="value = 'mine'")
    assert load(folder).module.value == "mine"
    assert sys.modules["attrs"] is attrs


def test_a_data_folder_shadows_no_package(write):
    folder = write(agent="import attrs\nvalue = attrs.frozen")
    (folder / "attrs").mkdir()
    (folder / "attrs" / "data.csv").write_text("1")
    assert callable(load(folder).module.value)


def test_the_main_module_is_never_shadowed(tmp_path):
    (tmp_path / "__main__.py").write_text("raise OSError")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "agent.py").write_text("import __main__")
    (tmp_path / "one" / "__main__.py").write_text("raise OSError")
    assert load(tmp_path / "one", shared=tmp_path).module.__dict__["__main__"] is sys.modules["__main__"]


def test_only_shared_names_with_an_underscore_are_siblings_and_own_ones_take_precedence(tmp_path):
    for file, text in {
        "_helpers.py": "value = 'shared'",
        "_more.py": "from _helpers import value",
        "neighbor_only_here.py": "",
        "one/_helpers.py": "value = 'own'",
        "one/agent.py": "from _more import value\ndef neighbor():\n    import neighbor_only_here",
    }.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    module = load(tmp_path / "one", shared=tmp_path).module
    assert module.value == "own"
    with pytest.raises(ModuleNotFoundError, match="neighbor_only_here"):
        module.neighbor()


@pytest.mark.parametrize(
    "statement",
    [
        "import importlib.resources as r; value = (r.files(__package__) / 'data.txt').read_text()",
        "import importlib.resources as r, sub; value = (r.files(sub) / 'data.txt').read_text()",
        "import pkgutil; value = pkgutil.get_data(__name__, 'data.txt').decode()",
        "from pathlib import Path; value = (Path(__file__).parent / 'data.txt').read_text()",
    ],
)
def test_data_files_in_the_modules_folder_are_found(write, statement):
    folder = write(agent=statement, sub__deep="")
    (folder / "data.txt").write_text("here")
    (folder / "sub" / "data.txt").write_text("here")
    assert load(folder).module.value == "here"


def test_a_single_file_finds_its_data(write):
    folder = write(quick="import importlib.resources as r\nvalue = (r.files(__package__) / 'data.txt').read_text()")
    (folder / "data.txt").write_text("here")
    assert load_isolated(folder / "quick.py", folder=None, name="quick").module.value == "here"


def test_existing_bytecode_is_not_read(write):
    folder = write(agent="from tools import value", tools="value = 1")
    py_compile.compile(str(folder / "tools.py"))
    compiled_at = (folder / "tools.py").stat()
    write(tools="value = 2")
    os.utime(folder / "tools.py", ns=(compiled_at.st_atime_ns, compiled_at.st_mtime_ns))
    assert load(folder).module.value == 2


def test_the_working_directory_may_change_after_the_load(write, monkeypatch):
    folder = write(agent="def later():\n    from tools import value\n    return value", tools="value = 1")
    monkeypatch.chdir(folder)
    module = load_isolated(Path("agent.py"), folder=Path(), name="x").module
    monkeypatch.chdir("/")
    assert module.later() == 1


def test_a_long_expression_is_supported(write):
    text = "value = " + " + ".join(["1"] * 600)
    assert load(write(agent=f"import tools\n{text}", tools="")).module.value == 600


def test_files_lists_the_files_imported_so_far(write):
    text = "import sub.deep\ndef later():\n    import late"
    folder = write(agent=text, sub__deep="", late="", never="")
    loaded = load(folder)
    assert loaded.files == {folder / "agent.py", folder / "sub" / "deep.py"}
    loaded.module.later()
    assert loaded.files == {folder / "agent.py", folder / "sub" / "deep.py", folder / "late.py"}
    loaded.unload()
    assert loaded.files == frozenset()


def test_after_unload_code_runs_but_cannot_import_siblings(write):
    folder = write(
        agent="import tools\ndef use(): return tools.value\ndef later(): import late", tools="value = 1", late=""
    )
    loaded = load(folder)
    loaded.unload()
    assert loaded.module.use() == 1
    with pytest.raises(ModuleNotFoundError):
        loaded.module.later()
    assert not [name for name in sys.modules if name.startswith(loaded.package)]


def test_unloading_a_module_keeps_another_with_the_same_prefix(write):
    folder = write(agent="")
    first = load_isolated(folder / "agent.py", folder=folder, name="x")
    other = load_isolated(folder / "agent.py", folder=folder, name=first.package.removeprefix("gateway_agent_"))
    assert other.package.startswith(first.package)
    first.unload()
    assert sys.modules[other.module.__name__] is other.module


def test_threads_load_and_unload_at_the_same_time(tmp_path):
    for number in range(16):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "agent.py").write_text("import tools\nvalue = tools.value")
        (tmp_path / str(number) / "tools.py").write_text(f"value = {number}")
    start = threading.Barrier(16)
    seen = {}

    def work(number):
        start.wait(10)
        for _ in range(5):
            loaded = load(tmp_path / str(number))
            seen.setdefault(number, []).append(loaded.module.value)
            loaded.unload()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == {number: [number] * 5 for number in range(16)}
    assert (
        len([finder for finder in sys.meta_path if type(finder).__module__ == "gateway_core.catalog.module_isolation"])
        == 1
    )


def test_imports_and_unloads_may_be_concurrent(write, monkeypatch):
    class Name(str):
        """A name that simulates an import of another thread when it is compared."""

        def startswith(self, *args):
            monkeypatch.setitem(sys.modules, "imported_meanwhile", ModuleType("imported_meanwhile"))
            return super().startswith(*args)

    folder = write(agent="1/0")
    monkeypatch.setitem(sys.modules, Name("any_other"), ModuleType("any_other"))
    with pytest.raises(ZeroDivisionError):
        load(folder)


@pytest.mark.parametrize(("text", "line"), [("x = 1\ny = = 2\n", "y = = 2"), ("x = 1\nreturn 2\n", "return 2")])
def test_a_syntax_error_points_at_the_authors_line(write, text, line):
    folder = write(agent=text)
    with pytest.raises(SyntaxError) as caught:
        load(folder)
    error = caught.value
    assert (error.filename, error.lineno, error.text.strip()) == (str(folder / "agent.py"), 2, line)


def test_failed_loads_are_freed_too(write):
    folder = write(agent="import tools\n1/0", tools="class Helper: pass\nimport sys\nsys.seen_helpers.add(Helper)")
    alive = sys.seen_helpers = weakref.WeakSet()
    try:
        for _ in range(20):
            with pytest.raises(ZeroDivisionError):
                load(folder)
        gc.collect()
        assert len(alive) == 0
    finally:
        del sys.seen_helpers


PACKAGED = {
    "health_pkg/agent.py": "",
    "health_pkg/tools/plan.py": "value = 1\nclass Plan: pass",
    "health_pkg/context.py": "from .tools.plan import Plan\nfrom health_pkg.tools.plan import Plan as Same",
    "proj/shared.py": "value = 1\nfrom . import settings\nfrom proj.pkg.tools import value as inner",
    "proj/settings.py": "value = 1",
    "proj/common/__init__.py": "value = 1",
    "proj/pkg/agent.py": "",
    "proj/pkg/tools.py": "value = 1\nfrom ..settings import value",
    "proj/single.py": "",
    "srced/agent.py": "",
    "srced/src/x_pkg/tools.py": "from x_pkg.more import value\nfrom src.x_pkg.more import value",
    "srced/src/x_pkg/more.py": "value = 1",
    "_shared/values.py": "value = 1",
    "other/tools.py": "value = 1",
}


@pytest.fixture
def tree(tmp_path):
    """A drop-in folder with several layouts of projects."""
    root = tmp_path / "dropped"
    for name, text in PACKAGED.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def load_in(root, folder, statement, name="agent.py"):
    file = root / folder / name
    file.write_text(statement)
    return load_isolated(file, folder=file.parent if name == "agent.py" else None, name=folder, shared=root)


@pytest.mark.parametrize(
    ("folder", "statement"),
    [
        ("health_pkg", "from health_pkg.tools.plan import value"),
        ("health_pkg", "from health_pkg.tools import plan; value = plan.value"),
        ("health_pkg", "from health_pkg import context; value = context.Plan is context.Same"),
        ("health_pkg", "import health_pkg.tools.plan; value = health_pkg.tools.plan.value"),
        ("health_pkg", "import health_pkg.tools.plan as plan; value = plan.value"),
        ("srced", "from x_pkg.tools import value"),
        ("srced", "from src.x_pkg.tools import value"),
        ("srced", "import x_pkg.more; value = x_pkg.more.value"),
        ("proj/pkg", "from pkg.tools import value"),
        ("proj/pkg", "from proj.pkg.tools import value"),
        ("proj/pkg", "from ..shared import value"),
        ("proj/pkg", "from .. import shared; value = shared.value"),
        ("proj/pkg", "from ..common import value"),
        ("proj/pkg", "from shared import value"),
        ("proj/pkg", "from proj.shared import value"),
        ("proj/pkg", "import proj.shared; value = proj.shared.value"),
        ("proj/pkg", "from proj import shared; value = shared.value"),
        ("proj/pkg", "from shared import inner as value"),
        ("proj/pkg", "from .tools import value"),
        ("health_pkg", "from .._shared.values import value"),
        ("health_pkg", "from .. import _shared\nfrom .._shared import values\nvalue = values.value"),
    ],
)
def test_every_layout_of_a_project(tree, folder, statement):
    loaded = load_in(tree, folder, statement)
    assert loaded.module.value == 1
    assert sum(file.name == "tools.py" for file in loaded.files) <= 1


@pytest.mark.parametrize(
    "statement",
    ["from shared import value", "from .shared import value", "from proj.shared import value", "import common as m"],
)
def test_a_single_file_in_a_folder_finds_the_files_beside_it(tree, statement):
    load_in(tree, "proj", statement, name="single.py")


def test_a_single_file_finds_the_packages_in_the_source_folder_of_its_project(tree):
    assert load_in(tree, "srced", "from x_pkg.tools import value", name="run_it.py").module.value == 1


@pytest.mark.parametrize("folder", ["health_pkg", "proj/pkg"])
@pytest.mark.parametrize(
    "statement", ["import other.tools", "from ..other import tools", "from other.tools import value"]
)
def test_other_agents_folders_are_not_importable(tree, folder, statement):
    with pytest.raises(ImportError):
        load_in(tree, folder, statement)


def test_an_installed_package_precedes_the_folder_of_its_name(tree):
    (tree / "attrs").mkdir()
    assert load_in(tree, "attrs", "from attrs import frozen").module.frozen is not None
    (tree / "attrs" / "attrs.py").write_text("frozen = 'own'")
    assert load_in(tree, "attrs", "from attrs import frozen").module.frozen == "own"


def test_a_folder_named_like_a_package_that_is_not_installed(tree):
    (tree / "not_there").mkdir()
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        load_in(tree, "not_there", "from not_there import Client")


def test_the_init_file_beside_an_agent_runs_only_if_a_name_is_taken_from_it(tree):
    (tree / "health_pkg" / "__init__.py").write_text("from .tools.plan import value\nnames = __name__, __file__")
    module = load_in(tree, "health_pkg", "from health_pkg import value").module
    assert module.value == 1
    (tree / "health_pkg" / "__init__.py").write_text("raise RuntimeError('it ran')")
    load_in(tree, "health_pkg", "from . import tools\nfrom health_pkg import context")
    with pytest.raises(RuntimeError, match="it ran"):
        load_in(tree, "health_pkg", "from . import value")


def test_two_agents_above_which_the_same_names_exist(tree):
    for project in ("one", "two"):
        (tree / project / "pkg").mkdir(parents=True)
        (tree / project / "shared.py").write_text(f"value = {project!r}")
    loaded = [load_in(tree, f"{project}/pkg", "from ..shared import value") for project in ("one", "two")]
    assert [one.module.value for one in loaded] == ["one", "two"]
    assert "shared" not in sys.modules


def test_a_link_to_a_file_outside_the_drop_in_folder_is_not_imported(tree, tmp_path):
    (tmp_path / "secret.py").write_text("value = 1")
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "part.py").write_text("value = 1")
    (tree / "health_pkg" / "secret.py").symlink_to(tmp_path / "secret.py")
    (tree / "health_pkg" / "whole").symlink_to(tmp_path / "whole")
    (tree / "health_pkg" / "within.py").symlink_to(tree / "_shared" / "values.py")
    for statement in ("import secret", "from . import secret", "import whole.part", "from .whole.part import value"):
        with pytest.raises(ImportError):
            load_in(tree, "health_pkg", statement)
    assert load_in(tree, "health_pkg", "from within import value").module.value == 1


@pytest.mark.parametrize("place", ["health_pkg/.env", ".env"])
def test_load_dotenv_finds_the_file_as_for_a_script(tree, place, monkeypatch):
    # Without the attribute, `find_dotenv` takes the process for an interactive session, as in a worker of the tests.
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    monkeypatch.setenv("COLOR_OF_TEST", "none")  # restored at the end
    monkeypatch.delenv("COLOR_OF_TEST")
    (tree / place).write_text("COLOR_OF_TEST=blue\n")
    text = "import os\nfrom dotenv import load_dotenv\nload_dotenv()\nvalue = os.environ['COLOR_OF_TEST']"
    assert load_in(tree, "health_pkg", text).module.value == "blue"
