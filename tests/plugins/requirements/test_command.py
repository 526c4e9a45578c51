"""`agent-gateway deps install`: a plan is shown, hostile files start no process, a real wheel is installed."""

import base64
import hashlib
import os
import shutil
import sys
import zipfile
from importlib.metadata import version

import pytest
from click.testing import CliRunner
from gateway_plugins.requirements import Requirements, Settings
from gateway_plugins.requirements.installing import run

from gateway_core.errors import ConfigError

SHA = "sha256:" + "0" * 64


class Recorder:
    """A runner that starts nothing; it notes each command, and the files that the command would read."""

    def __init__(self, status=0):
        self.commands = []
        self.files = []
        self.status = status

    def __call__(self, command, folder, tell):
        self.commands.append(list(command))
        self.files.append({path.name: path.read_text().splitlines() for path in folder.iterdir()})
        tell("said https://user:canary@index.test/ is down")
        return self.status


@pytest.fixture
def agents(tmp_path):
    def make(**files):
        for name, requirements in files.items():
            folder = tmp_path / "agents" / name.replace("__", "/")
            folder.mkdir(parents=True)
            (folder / "agent.py").write_text("from agents import Agent\nagent = Agent(name='x')\n")
            if requirements is not None:
                (folder / "requirements.txt").write_text(requirements)
        return tmp_path / "agents"

    return make


def deps(runner, *arguments, settings=None):
    [group] = Requirements(None, settings or Settings(), runner).commands()
    return CliRunner().invoke(group, ["install", *map(str, arguments)])


HOSTILE = [
    "--index-url https://evil.test/simple",
    "-i https://evil.test/simple",
    "--extra-index-url=https://evil.test/simple",
    "--find-links ./wheels",
    "--trusted-host evil.test",
    "--no-binary :all:",
    "--pre",
    "-r -",
    "-r /etc/passwd",
    "-rother.txt",
    "-c ../Other/limits.txt",
    "-c /etc/hosts",
    "-c https://evil.test/limits.txt",
    "-e .",
    "-e git+https://evil.test/x",
    "git+https://evil.test/x.git#egg=x",
    "hg+http://evil.test/x",
    "https://evil.test/x-1.0-py3-none-any.whl",
    "file:///tmp/x",
    "./x",
    "../x",
    "/tmp/x",
    "~/x",
    "x/y",
    "C:\\x",
    "x-1.0.tar.gz",
    "x.whl",
    "x @ https://evil.test/x.zip",
    "x @ file:///tmp/x",
    "x @ git+ssh://git@evil.test/x",
    "${EVIL}",
    "x==${VERSION}",
    "x --global-option=build",
    "x --config-settings=a=b",
    f"x==1 --hash={SHA} --index-url=https://evil.test",
    "attrs \\\n--index-url https://evil.test",
    "att\\\nrs",
    "# harmless \\\n--index-url https://evil.test",
    "attrs # harmless\u2028--index-url https://evil.test",
    "attrs\x0c-r evil.txt",
    "attrs\n\n   --index-url https://evil.test",
    f"attrs==1 --hash={SHA}\nclick",
    "not a requirement",
]


@pytest.mark.parametrize("content", HOSTILE)
def test_a_hostile_file_starts_no_process(agents, content):
    folder = agents(Evil=f"no-such-project-here\n{content}\n", Other=None)
    (folder / "Other" / "limits.txt").write_text("attrs<1\n")
    runner = Recorder()
    result = deps(runner, "--agents", folder)
    assert (result.exit_code, runner.commands) == (1, [])
    line = 4 if content.startswith("attrs\n\n") else 3 if "\n" in content and "\\\n" not in content else 2
    line = 3 if content.startswith("# harmless") else line
    assert f"Evil/requirements.txt:{line}: " in result.stderr
    assert result.stdout == ""


def test_what_is_refused_is_shown_without_control_characters(agents):
    result = deps(Recorder(), "--agents", agents(Evil="-r \x1b[2Jx\n"))
    assert "\x1b" not in result.stderr
    assert "-r �[2Jx" in result.stderr


@pytest.mark.parametrize("option", ["--index-url ", "--index-url=", "-i"])
def test_what_is_refused_is_shown_without_passwords(agents, option):
    result = deps(Recorder(), "--agents", agents(Evil=f"{option}https://me:canary@evil.test/simple\n"))
    assert result.exit_code == 1
    assert "https://***@evil.test" in result.stderr
    assert "canary" not in result.output


def test_a_dry_run_prints_the_plan_and_starts_nothing(agents):
    runner = Recorder()
    folder = agents(One="attrs>=20\nno-such-project-here==1; python_version >= '3'\n", labs__Two="click\n", Three=None)
    result = deps(runner, "--agents", folder, "--dry-run")
    assert (result.exit_code, runner.commands) == (0, [])
    out = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert out[:2] == [f"labs/Two ({folder}/labs/Two/agent.py)", "click ok"]
    assert "attrs>=20 ok" in out
    assert 'no-such-project-here==1; python_version >= "3" missing' in out
    [command] = [line for line in out if line.startswith("$ ")]
    assert "--only-binary :all: -r requirements.txt -c constraints.txt" in command
    assert "click" not in out[2:], "who has all it needs is not installed again"


def test_a_conflict_with_what_is_installed_is_a_state(agents):
    result = deps(Recorder(), "--agents", agents(One="hypothesis<1\n"), "--dry-run")
    assert f"conflicts with installed hypothesis {version('hypothesis')}" in result.stdout


def test_the_installer_gets_what_was_understood_and_the_limits_of_all(agents):
    runner = Recorder()
    folder = agents(
        One="No_Such.Project[ x ] >= 1  # note\n-c limits.txt\nabsent; python_version < '3'\n",
        Two="other-absent-thing<9\n",
    )
    (folder / "One" / "limits.txt").write_text("absent-limit<7\n")
    result = deps(runner, "--agents", folder, "--agent", "One")
    [files] = runner.files
    assert files["requirements.txt"] == ["No_Such.Project[x]>=1"]
    assert {"absent-limit<7", "other-absent-thing<9", "openai-agents<0.25,>=0.24"} <= set(files["constraints.txt"])
    assert result.exit_code == 1, "it is still missing, for nothing was installed"
    assert "No_Such.Project[x]>=1: missing" in result.stderr
    assert "canary" not in result.output
    [command] = runner.commands
    assert sys.executable in command
    assert "--require-hashes" not in command


def test_source_is_allowed_by_the_setting_only(agents, tmp_path):
    folder = agents(One="no-such-project-here\n")
    file = tmp_path / "gateway.toml"
    file.write_text("[plugins.requirements]\nallow_source = true\n")
    runner = Recorder()
    deps(runner, "--agents", folder)
    deps(runner, "--agents", folder, settings=Settings(allow_source=True))
    deps(runner, "--config", file)
    file.write_text("[server]\nport = 1\n")
    deps(runner, "--config", file, settings=Settings(allow_source=True))
    assert [("--only-binary" in command) for command in runner.commands] == [True, False, False, True]


@pytest.mark.parametrize(
    "text", ["plugins = 1", "[plugins.requirements]\nallow_source = 'yes'", "not toml", None], ids=repr
)
def test_a_wrong_configuration_is_told(agents, tmp_path, text):
    file = tmp_path / "gateway.toml"
    if text is not None:
        file.write_text(text)
    result = deps(Recorder(), "--config", file)
    assert isinstance(result.exception, ConfigError)
    assert "gateway.toml" in result.exception.source


def test_hashes_are_required_where_they_are_given_and_only_there(agents):
    runner = Recorder()
    folder = agents(One=f"no-such-project-here==1 --hash={SHA}\n", Two="other-absent-thing\n")
    deps(runner, "--agents", folder)
    assert [("--require-hashes" in command) for command in runner.commands] == [True, False]
    assert runner.files[0]["requirements.txt"] == [f"no-such-project-here==1 --hash={SHA}"]
    assert runner.files[0]["constraints.txt"] == [], "uv takes no ranges beside hashes"
    assert "no-such-project-here==1" in runner.files[1]["constraints.txt"]


def test_two_agents_in_conflict_are_named_with_their_files(agents):
    runner = Recorder()
    folder = agents(One="no-such-project-here==1\n", Two="# x\nno_such_project_here==2\n", Three="click\n")
    for arguments in ([], ["--agent", "One"], ["--dry-run"]):
        result = deps(runner, "--agents", folder, *arguments)
        assert (result.exit_code, runner.commands) == (1, [])
        for told in ("agent One", "agent Two", "One/requirements.txt:1", "Two/requirements.txt:2"):
            assert told in result.stderr
    assert deps(runner, "--agents", folder, "--agent", "Three").exit_code == 0


def test_an_agent_cannot_replace_what_the_gateway_runs_on(agents):
    runner = Recorder()
    result = deps(runner, "--agents", agents(One="openai<2\n"))
    assert (result.exit_code, runner.commands) == (1, [])
    assert "the gateway itself wants openai" in result.stderr


def test_an_agent_for_another_python_is_not_installed_for(agents):
    folder = agents(One="no-such-project-here\n")
    (folder / "One" / "agent.py").write_text('# /// script\n# requires-python = ">=4"\n# ///\n')
    runner = Recorder()
    result = deps(runner, "--agents", folder)
    assert (result.exit_code, runner.commands) == (1, [])
    assert "One: Python >=4 is asked for" in result.stderr


def test_an_agent_is_meant_by_its_whole_name(agents):
    folder = agents(Weather="absent-one\n", Weather2="absent-two\n", labs__Weather="absent-three\n")
    for name, expected in (
        ("Weather", "absent-one"),
        ("default/weather", "absent-one"),
        ("labs/Weather", "absent-three"),
    ):
        runner = Recorder()
        deps(runner, "--agents", folder, "--agent", name)
        assert [files["requirements.txt"] for files in runner.files] == [[expected]]
    runner = Recorder()
    result = deps(runner, "--agents", folder, "--agent", "Weathe")
    assert (result.exit_code, runner.commands) == (1, [])
    assert "no agent 'Weathe'; did you mean 'Weather'?" in result.stderr


def test_a_hostile_neighbour_does_not_keep_an_agent_from_its_own(agents):
    runner = Recorder()
    folder = agents(Good="absent-one\n", Evil="-r /etc/passwd\n")
    deps(runner, "--agents", folder, "--agent", "Good")
    assert len(runner.commands) == 1


def test_single_files_and_skipped_ones(agents):
    folder = agents(One=None)
    block = "# /// script\n# dependencies = ['absent-{}']\n# ///\n"
    (folder / "quick.py").write_text(block.format("quick"))
    (folder / "_shared.py").write_text(block.format("shared"))
    (folder / "test_quick.py").write_text(block.format("test"))
    (folder / "lib").mkdir()
    (folder / "lib" / "helper.py").write_text(block.format("helper"))
    (folder / "lib" / "agent_two.py").write_text(block.format("two") + "from agents import Agent\n")
    runner = Recorder()
    deps(runner, "--agents", folder)
    assert runner.files[0]["requirements.txt"] == ["absent-quick", "absent-two"]


def test_nothing_to_do(agents, tmp_path):
    runner = Recorder()
    folder = agents(One="attrs\n", Two=None)
    assert "Nothing to install." in deps(runner, "--agents", folder).stdout
    assert "No requirements are declared." in deps(runner, "--agents", folder, "--agent", "Two").stdout
    missing = deps(runner, "--agents", tmp_path / "nowhere")
    assert (missing.exit_code, runner.commands) == (1, [])
    assert "--agents" in missing.stderr


def test_a_failing_installer_fails_the_command(agents):
    result = deps(Recorder(status=3), "--agents", agents(One="absent-one\n"))
    assert result.exit_code == 1
    assert "exit status 3: said https://***@index.test/ is down" in result.stderr


def make_wheel(folder, name):
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    contents = {
        f"{name}.py": "ANSWER = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in contents.items():
            wheel.writestr(file, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{file},sha256={digest},{len(text)}\n"
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("tool", ["uv", "pip"])
@pytest.mark.parametrize("hashes", ["none", "right", "wrong"])
def test_a_real_wheel_is_installed(agents, tmp_path, monkeypatch, tool, hashes):
    if tool == "uv" and shutil.which("uv", path=os.path.dirname(sys.executable)) is None and not shutil.which("uv"):
        pytest.skip("uv is not installed")
    name = f"tiny_wheel_{tool}_{hashes}"
    digest = make_wheel(tmp_path / "wheels", name)
    pin = {"none": "", "right": f" \\\n  --hash=sha256:{digest}", "wrong": f" --hash={SHA}"}[hashes]
    target = tmp_path / "target"
    target.mkdir()
    monkeypatch.syspath_prepend(str(target))

    def runner(command, folder, tell):
        # Into a folder of the test's own, and from one: the environment that runs the tests stays as it is.
        if tool == "pip":
            at = command.index("--only-binary")
            command = [sys.executable, "-m", "pip", "install", *command[at:]]
        where = ["--target", str(target), "--no-index", "--find-links", str(tmp_path / "wheels")]
        return run([*command, *where], folder, tell)

    folder = agents(One=f"{name}==1.0{pin}\n")
    result = deps(runner, "--agents", folder)
    assert (result.exit_code == 0) is (hashes != "wrong"), result.output
    assert (target / f"{name}.py").exists() is (hashes != "wrong")
    if hashes != "wrong":
        assert "Installed." in result.stdout
        again = deps(Recorder(), "--agents", folder)
        assert "Nothing to install." in again.stdout


def test_a_command_that_cannot_be_started_is_told(agents):
    def runner(command, folder, tell):
        return run(["/no/such/installer", *command[1:]], folder, tell)

    result = deps(runner, "--agents", agents(One="absent-one\n"))
    assert result.exit_code == 1
    assert "cannot be started" in result.stderr
