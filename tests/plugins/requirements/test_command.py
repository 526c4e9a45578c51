"""`agent-gateway deps install`: a plan is shown, hostile files start no process, uv installs real wheels."""

import sys
from importlib.metadata import version

import pytest
import uv
from click.testing import CliRunner
from gateway_plugins.requirements import Requirements, Settings

from gateway_core.errors import ConfigError
from tests.support.wheels import make_wheel

SHA = "sha256:" + "0" * 64


def deps(*arguments):
    [group] = Requirements(None, Settings()).commands()
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
    "x[a].whl",
    "x @ https://evil.test/x.zip",
    "x[a] @ https://evil.test/x.zip",
    "x @ file:///tmp/x",
    "x @ git+ssh://git@evil.test/x",
    "${EVIL}",
    "x==${VERSION}",
    "x --global-option=build",
    "x --config-settings=a=b",
    f"x==1 --hash={SHA} --index-url=https://evil.test",
    "attrs \\\n--index-url https://evil.test",
    "# harmless \\\n--index-url https://evil.test",
    "attrs\x0c-r evil.txt",
    "attrs\u2028--index-url https://evil.test",
    "attrs\n\n   --index-url https://evil.test",
    "not a requirement",
]


@pytest.mark.parametrize("content", HOSTILE)
def test_a_hostile_file_starts_no_process(agents, no_process, content):
    folder = agents(Evil=f"no-such-project-here\n{content}\n", Other=None)
    (folder / "Other" / "limits.txt").write_text("attrs<1\n")
    result = deps("--agents", folder)
    assert result.exit_code == 1
    line = 4 if content.startswith("attrs\n\n") else 3 if content.startswith("# harmless") else 2
    assert f"Evil/requirements.txt:{line}: " in result.stderr
    assert result.stdout == ""


def test_what_is_rejected_is_shown_without_control_characters(agents, no_process):
    result = deps("--agents", agents(Evil="-r \x1b[2Jx\n--\x1b[2J\n"))
    assert "\x1b" not in result.stderr
    assert "-r �[2Jx" in result.stderr


@pytest.mark.parametrize("option", ["--index-url ", "--index-url=", "-i"])
def test_what_is_rejected_is_shown_without_passwords(agents, no_process, option):
    result = deps("--agents", agents(Evil=f"{option}https://me:canary@evil.test/simple\n"))
    assert result.exit_code == 1
    assert "https://***@evil.test" in result.stderr
    assert "canary" not in result.output


def test_a_dry_run_prints_the_plan_and_installs_nothing(agents, wheels, environment):
    make_wheel(wheels, "tiny", "1.0")
    make_wheel(wheels, "tiny", "2.0")
    make_wheel(wheels, "needs_tiny", "1.0", "tiny<2")
    folder = agents(One="attrs>=20\nneeds-tiny==1; python_version >= '3'\n", labs__Two="click\n", Three=None)
    result = deps("--agents", folder, "--dry-run")
    assert result.exit_code == 0, result.output
    out = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert out[:2] == [f"labs/Two ({folder}/labs/Two/agent.py)", "click ok"]
    assert "attrs>=20 ok" in out
    assert 'needs-tiny==1; python_version >= "3" missing' in out
    assert [line for line in out if line.startswith(("+", "-", "~"))] == ["+ needs-tiny==1.0", "+ tiny==1.0"]
    assert not list(environment.glob("*tiny*"))


def test_a_conflict_with_what_is_installed_is_a_state(agents, wheels):
    result = deps("--agents", agents(One="hypothesis<1\n"), "--dry-run")
    assert f"conflicts with installed hypothesis {version('hypothesis')}" in result.stdout


@pytest.mark.parametrize("hashes", ["none", "right", "wrong"])
def test_a_real_wheel_is_installed(agents, wheels, environment, hashes):
    name = f"tiny_wheel_{hashes}"
    digest = make_wheel(wheels, name)
    pin = {"none": "", "right": f" \\\n  --hash=sha256:{digest}", "wrong": f" --hash={SHA}"}[hashes]
    folder = agents(One=f"{name}==1.0{pin}\n")
    result = deps("--agents", folder)
    assert (result.exit_code == 0) is (hashes != "wrong"), result.output
    assert (environment / f"{name}.py").exists() is (hashes != "wrong")
    if hashes == "wrong":
        assert "Hash mismatch" in result.stderr
        assert "One/requirements.txt:1" in result.stderr
    else:
        assert "Installed." in result.stdout
        assert "Nothing to install." in deps("--agents", folder).stdout


def test_the_progress_of_an_installation_is_shown(agents, wheels, environment, monkeypatch):
    monkeypatch.setattr("gateway_plugins.requirements.installing.PROGRESS_SECONDS", 0.001)
    make_wheel(wheels, "tiny_progress")
    result = deps("--agents", agents(One="tiny_progress\nclick\n"))
    lines = [
        line for line in result.stdout.splitlines() if not line.startswith(("Using", " +", "Resolved", "Prepared"))
    ]
    start = lines.index("Resolving 2 requirements ...")
    assert lines[start + 1].startswith("  still working (0 s)")
    steps = [line for line in lines[start:] if line.endswith("...")]
    assert steps == ["Resolving 2 requirements ...", "Installing ..."]
    assert not set("\x1b\r\b") & set(result.output)


def test_what_all_agents_need_is_installed_together(agents, wheels, environment):
    digest = make_wheel(wheels, "tiny", "1.0")
    make_wheel(wheels, "tiny", "2.0")
    make_wheel(wheels, "other")
    folder = agents(Hashed=f"tiny==1.0 --hash=sha256:{digest}\n", Plain="tiny\nother\n")
    result = deps("--agents", folder)
    assert result.exit_code == 0, result.output
    assert (environment / "tiny-1.0.dist-info").exists()
    assert (environment / "other-1.0.dist-info").exists()


def test_nothing_is_installed_before_everything_is_resolved(agents, wheels, environment):
    digest = make_wheel(wheels, "tiny", "1.0")
    make_wheel(wheels, "tiny", "2.0")
    result = deps("--agents", agents(Hashed=f"tiny==1.0 --hash=sha256:{digest}\n", Plain="tiny==2\n"))
    assert result.exit_code == 1
    assert "agent Hashed requires tiny==1.0" in result.stderr
    assert not list(environment.glob("*tiny*"))


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        ("needs-tiny==1.0 --hash=sha256:{needs_tiny}\n", "no trusted hash was provided for: `tiny`"),
        ("needs-tiny==1.0 --hash=sha256:{needs_tiny}\ntiny==1.0\n", "must have a hash"),
        ("needs-tiny==1.0 --hash=sha256:{needs_tiny}\ntiny --hash=sha256:{tiny}\n", "pinned with `==`"),
    ],
)
def test_when_one_line_has_a_hash_every_package_must_be_pinned_by_one(
    agents, wheels, environment, requirements, message
):
    digests = {"tiny": make_wheel(wheels, "tiny"), "needs_tiny": make_wheel(wheels, "needs_tiny", "1.0", "tiny")}
    result = deps("--agents", agents(One=requirements.format(**digests)))
    assert result.exit_code == 1
    assert message in result.stderr
    assert "One/requirements.txt:" in result.stderr
    assert not list(environment.glob("*tiny*"))


def test_constraints_and_the_other_agents_limit_the_versions(agents, wheels, environment):
    for number in ("1.0", "2.0", "3.0"):
        make_wheel(wheels, "tiny", number)
        make_wheel(wheels, "small", number)
    folder = agents(
        One="Tiny[ x ] >= 1  # note\nsmall\n-c limits.txt\nabsent; python_version < '3'\n", Two="tiny<3\nabsent-too\n"
    )
    (folder / "One" / "limits.txt").write_text("small<2\nnever-required==1\n")
    result = deps("--agents", folder, "--agent", "One", "--dry-run")
    assert result.exit_code == 0, result.output
    plan = {line.strip() for line in result.stdout.splitlines() if line.startswith(" + ")}
    assert plan == {"+ tiny==2.0", "+ small==1.0"}


def test_what_is_still_not_met_after_an_installation_fails_the_command(agents, wheels, environment, monkeypatch):
    make_wheel(wheels, "tiny")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(environment)])
    result = deps("--agents", agents(One="tiny\n"))
    assert (environment / "tiny.py").exists()
    assert result.exit_code == 1
    assert "One: tiny: missing" in result.stderr


def make_source(folder, name):
    """A project in source form, whose build leaves a trace."""
    import io
    import tarfile

    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "1.0"\n',
        "backend.py": "import pathlib, shutil\n"
        f"def build_wheel(target, *_):\n    pathlib.Path({str(folder / 'was_built')!r}).touch()\n"
        f"    made = pathlib.Path({str(folder)!r}) / 'hidden' / '{name}-1.0-py3-none-any.whl'\n"
        "    return pathlib.Path(shutil.copy(made, target)).name\n",
    }
    make_wheel(folder / "hidden", name)
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as archive:
        for file, text in files.items():
            entry = tarfile.TarInfo(f"{name}-1.0/{file}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))


def test_source_is_built_by_the_setting_only(agents, wheels, environment, tmp_path):
    make_source(wheels, "only_source")
    folder = agents(One="only-source\n")
    refused = deps("--agents", folder)
    assert refused.exit_code == 1
    assert "set allow_source = true in [plugins.requirements]" in refused.stderr
    file = tmp_path / "gateway.toml"
    file.write_text("[server]\nport = 1\n")
    assert deps("--config", file).exit_code == 1
    assert not (wheels / "was_built").exists()
    file.write_text("[plugins.requirements]\nallow_source = true\n")
    result = deps("--config", file)
    assert result.exit_code == 0, result.output
    assert (wheels / "was_built").exists()
    assert (environment / "only_source.py").exists()


@pytest.mark.parametrize(
    "text", ["plugins = 1", "[plugins.requirements]\nallow_source = 'yes'", "not toml", None], ids=repr
)
def test_a_wrong_configuration_is_reported(agents, no_process, tmp_path, text):
    file = tmp_path / "gateway.toml"
    if text is not None:
        file.write_text(text)
    result = deps("--config", file)
    assert isinstance(result.exception, ConfigError)
    assert "gateway.toml" in result.exception.source


def test_an_agent_for_another_python_is_not_installed_for(agents, no_process):
    folder = agents(One="no-such-project-here\n")
    (folder / "One" / "agent.py").write_text('# /// script\n# requires-python = ">=4"\n# ///\n')
    result = deps("--agents", folder)
    assert result.exit_code == 1
    assert "One: requires Python >=4" in result.stderr


def test_an_agent_is_chosen_by_its_whole_name(agents, wheels):
    for name in ("absent_one", "absent_two", "absent_three"):
        make_wheel(wheels, name)
    folder = agents(Weather="absent-one\n", Weather2="absent-two\n", labs__Weather="absent-three\n")
    for name, expected in (
        ("Weather", "absent-one"),
        ("default/weather", "absent-one"),
        ("labs/Weather", "absent-three"),
    ):
        result = deps("--agents", folder, "--agent", name, "--dry-run")
        assert [line for line in result.stdout.splitlines() if line.startswith(" +")] == [f" + {expected}==1.0"]


def test_an_unknown_agent_is_reported(agents, no_process):
    result = deps("--agents", agents(Weather="absent-one\n"), "--agent", "Weathe")
    assert result.exit_code == 1
    assert "no agent 'Weathe'; did you mean 'Weather'?" in result.stderr


def test_a_hostile_neighbour_does_not_keep_an_agent_from_its_own(agents, wheels):
    make_wheel(wheels, "absent_one")
    folder = agents(Good="absent-one\n", Evil="-r /etc/passwd\n")
    assert deps("--agents", folder, "--agent", "Good", "--dry-run").exit_code == 0


def test_single_files_and_skipped_ones(agents, no_process):
    folder = agents(One=None)
    block = "# /// script\n# dependencies = ['attrs-{0}', 'attrs']\n# requires-python = '>=4'\n# ///\n"
    (folder / "quick.py").write_text(block.format("quick"))
    (folder / "_shared.py").write_text(block.format("shared"))
    (folder / "test_quick.py").write_text(block.format("test"))
    (folder / "lib").mkdir()
    (folder / "lib" / "helper.py").write_text(block.format("helper"))
    (folder / "lib" / "agent_two.py").write_text(block.format("two") + "from agents import Agent\n")
    out = deps("--agents", folder).stdout.splitlines()
    assert [line.split()[0] for line in out if not line.startswith(" ")] == ["lib/agent_two", "quick"]
    assert [line.split() for line in out if "attrs-" in line] == [["attrs-two", "missing"], ["attrs-quick", "missing"]]


def test_nothing_to_do(agents, no_process, tmp_path):
    folder = agents(One="attrs\n", Two=None)
    assert "Nothing to install." in deps("--agents", folder).stdout
    assert "No requirements are declared." in deps("--agents", folder, "--agent", "Two").stdout
    missing = deps("--agents", tmp_path / "nowhere")
    assert missing.exit_code == 1
    assert "--agents" in missing.stderr


def test_an_index_that_cannot_be_reached_is_reported_without_its_password(agents, wheels, monkeypatch):
    monkeypatch.delenv("UV_CONFIG_FILE")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://me:canary@127.0.0.1:9/simple")
    result = deps("--agents", agents(One="absent-one\n"), "--dry-run")
    assert result.exit_code == 1
    assert "127.0.0.1:9" in result.stderr
    assert "agent One requires absent-one (" in result.stderr
    assert "canary" not in result.output


def test_settings_of_pip_that_uv_does_not_read_are_reported(agents, wheels, monkeypatch, caplog):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    folder = agents(One="absent-one\n")
    deps("--agents", folder, "--dry-run")
    assert "PIP_INDEX_URL" not in caplog.text, "uv has settings of its own"
    monkeypatch.delenv("UV_CONFIG_FILE")
    monkeypatch.setenv("UV_OFFLINE", "1")
    deps("--agents", folder, "--dry-run")
    assert "uv does not read PIP_INDEX_URL" in caplog.text


def test_the_operators_own_settings_are_read(agents, wheels, tmp_path, monkeypatch):
    make_wheel(tmp_path / "own", "absent_one")
    monkeypatch.delenv("UV_CONFIG_FILE")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "uv").mkdir(parents=True)
    (tmp_path / "config" / "uv" / "uv.toml").write_text(f"find-links = ['{tmp_path / 'own'}']\n")
    assert deps("--agents", agents(One="absent-one\n"), "--dry-run").exit_code == 0


def test_settings_in_a_parent_folder_are_not_read(agents, wheels, tmp_path, monkeypatch):
    make_wheel(tmp_path / "evil", "absent_one")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "uv.toml").write_text(f"find-links = ['{tmp_path / 'evil'}']\n")
    monkeypatch.delenv("UV_CONFIG_FILE")
    monkeypatch.setenv("UV_OFFLINE", "1")
    result = deps("--agents", agents(One="absent-one\n"), "--dry-run")
    assert result.exit_code == 1
    assert "absent-one was not found" in result.stderr


def test_no_output_of_uv_shows_a_password(agents, wheels, tmp_path, monkeypatch):
    fake = tmp_path / "uv"
    fake.write_text("#!/bin/sh\necho https://me:canary@index.test\necho error: https://me:canary@index.test\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setattr(uv, "find_uv_bin", lambda: str(fake))
    result = deps("--agents", agents(One="absent-one\n"), "--dry-run")
    assert result.exit_code == 1
    assert "https://***@index.test" in result.stdout
    assert "uv exited with status 3:\nerror: https://***@index.test\n" in result.stderr
    assert "canary" not in result.output


def test_a_uv_that_cannot_be_started_is_reported(agents, wheels, monkeypatch):
    monkeypatch.setattr(uv, "find_uv_bin", lambda: "/no/such/uv")
    result = deps("--agents", agents(One="absent-one\n"))
    assert result.exit_code == 1
    assert "uv cannot be started: No such file" in result.stderr
    assert "Reinstall the package 'uv'" in result.stderr
