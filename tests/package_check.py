"""Builds both distributions, and checks their contents and that they work in a new environment: `nox -s package`."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(sys.argv[1])
EXPECTED = {
    "agent_gateway": {"gateway_core", "gateway_plugins"},
    "agent_gateway_samples": {"gateway_agents"},
}


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **options)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for project in (ROOT, ROOT / "agents_pkg"):
            run(sys.executable, "-m", "build", "--wheel", "--installer", "uv", "--outdir", work, project)
        wheels = sorted(work.glob("*.whl"))
        for wheel in wheels:
            name = wheel.name.partition("-")[0]
            files = zipfile.ZipFile(wheel).namelist()
            top = {file.partition("/")[0] for file in files if ".dist-info/" not in file}
            if top != EXPECTED[name]:
                raise SystemExit(f"{wheel.name} has {sorted(top)} at its top level, not {sorted(EXPECTED[name])}")
        core = zipfile.ZipFile(wheels[0]).namelist()
        for needed in (
            "gateway_core/default.toml",
            "gateway_core/py.typed",
            "gateway_core/cli/templates/basic/agent.py",
            "gateway_core/cli/templates/gateway.toml",
        ):
            if needed not in core:
                raise SystemExit(f"{needed} is missing from {wheels[0].name}")
        run("uv", "venv", "--python", sys.executable, work / "venv")
        run("uv", "pip", "install", "--python", work / "venv" / "bin" / "python", *wheels)
        command = work / "venv" / "bin" / "agent-gateway"
        listing = run(command, "agents", cwd=work)
        for sample in ("SampleAgent", "Spark", "Triage", "Guarded"):
            if sample not in listing:
                raise SystemExit(f"the sample {sample} is not found after installing:\n{listing}")
        answer = run(command, "chat", "SampleAgent", "What is the weather in Paris?", "--offline", cwd=work)
        if "Paris" not in answer:
            raise SystemExit(f"the sample does not answer:\n{answer}")
    print("both distributions have the expected contents and work in a new environment")


main()
