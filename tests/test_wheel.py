"""The wheel is what people install: built here, installed in an environment of its own, tested from elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def files_of(package: Path) -> set[Path]:
    """All that a package is, but for what Python makes."""
    return {path.relative_to(package) for path in package.rglob("*.*") if path.suffix != ".pyc"}


@pytest.mark.slow
def test_the_wheel_is_complete(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command: object) -> str:
        words = [str(part) for part in command]
        return subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "*.egg-info", "build", "dist", ".*_cache")
    shutil.copytree(ROOT, source, ignore=ignored)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, source)
    (wheel,) = tmp_path.glob("pisa_ray-*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    # Dependencies come from this environment; the package itself must not.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import pisa_ray; print(pisa_ray.__file__)").strip()
    assert Path(where).is_relative_to(tmp_path / "env")
    assert files_of(Path(where).parent) == files_of(source / "src" / "pisa_ray")
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    some = "tests/algorithm/test_vectors.py", "tests/runtime/test_bits.py"
    printed = run(python, "-m", "pytest", *some, "-m", "not ray")
    assert " passed" in printed
    config = ROOT / "examples" / "digits.yaml"
    run(tmp_path / "env/bin/pisa-ray", "train", config, "--set", "workers=0", "--set", "rounds=20", "--out", "run")
    assert (tmp_path / "run" / "model.safetensors").exists()
    run(tmp_path / "env/bin/pisa-ray", "report", "run")
    assert "</html>" in (tmp_path / "run" / "report.html").read_text()
