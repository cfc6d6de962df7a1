"""Generates Python from protos/ into generated/, at build time and by `python hatch_build.py`.

generated/ holds what nobody edits or commits: the modules of `billing.v1` and `billing.gateway.v1` with their
type stubs, and `billing.binpb`, a descriptor set with comments for grpcurl, buf and any other reader of
reflection data. One function serves the wheel, the editable install and `make protos`, so they cannot differ.
"""

from __future__ import annotations

import filecmp
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DESCRIPTOR_SET_NAME = "billing.binpb"

# Its time of change is that of the last generation; make compares it with those of the protos.
_STAMP_NAME = ".made"

# The plug-ins of the code generator are scripts; protoc is told which interpreter to run them with, because a
# build environment's scripts folder is not always on PATH.
_PLUGIN_MODULES = {"protoc-gen-mypy": "main", "protoc-gen-mypy_grpc": "grpc"}


class GenerateProtobuf(BuildHookInterface[Any]):
    """Build hook: makes generated/ before hatchling collects files, and adds it to wheels."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate, and add generated code, protos and migrations to a wheel (`version` is "standard")."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        generate(root)
        if version == "editable":
            return
        generated = root / "generated"
        additions = {
            generated / "billing": "billing",
            generated / DESCRIPTOR_SET_NAME: f"billing/{DESCRIPTOR_SET_NAME}",
            root / "protos": "billing/protos",
            root / "migrations": "billing_server/migrations",
        }
        build_data["force_include"].update(
            {str(source): target for source, target in additions.items() if source.exists()}
        )


def generate(root: Path) -> list[str]:
    """Bring generated/ in line with protos/ and return the proto files it was made from.

    Files whose content does not change keep their modification time, so that caches of type checkers stay
    warm; files whose proto is gone are removed. Without any proto the packages exist but are empty.
    """
    protos_root = root / "protos"
    proto_names = sorted(path.relative_to(protos_root).as_posix() for path in protos_root.rglob("*.proto"))
    generated = root / "generated"
    generated.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=generated) as scratch_name:
        scratch = Path(scratch_name)
        if proto_names:
            _run_protoc(protos_root, proto_names, scratch)
        _add_package_markers(scratch)
        (scratch / _STAMP_NAME).touch()
        _replace_changed(scratch, generated)
    (generated / _STAMP_NAME).touch()
    return proto_names


def _run_protoc(protos_root: Path, proto_names: list[str], output: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="protoc-plugins-") as plugins:
        command = [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={protos_root}",
            *(f"--proto_path={path}" for path in _include_paths()),
            *(f"--plugin={_write_plugin(Path(plugins), name)}" for name in _PLUGIN_MODULES),
            f"--python_out={output}",
            f"--grpc_python_out={output}",
            f"--mypy_out=quiet:{output}",
            f"--mypy_grpc_out=quiet,only_async:{output}",
            f"--descriptor_set_out={output / DESCRIPTOR_SET_NAME}",
            "--include_imports",
            "--include_source_info",
            *proto_names,
        ]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise SystemExit(f"protos/ could not be compiled:\n{finished.stderr.strip()}")
    if finished.stderr.strip():
        print(finished.stderr.strip(), file=sys.stderr)  # noqa: T201 -- protoc's warnings belong to the builder


def _include_paths() -> list[Path]:
    """Folders that hold google/protobuf (from grpcio-tools) and google/rpc, google/type (googleapis)."""
    return [
        _package_folder("grpc_tools") / "_proto",
        _package_folder("google.rpc").parent.parent,
    ]


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"The code generator needs the Python package {name!r}, which is not installed.")
    return Path(next(iter(spec.submodule_search_locations)))


def _write_plugin(folder: Path, name: str) -> str:
    path = folder / name
    entry_point = _PLUGIN_MODULES[name]
    path.write_text(
        f"#!/bin/sh\nexec {_shell_quoted(sys.executable)} -c "
        f"'from mypy_protobuf.main import {entry_point}; {entry_point}()'\n"
    )
    path.chmod(0o700)
    return f"{name}={path}"


def _shell_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _add_package_markers(output: Path) -> None:
    """Make regular packages: a namespace package could not carry the py.typed marker."""
    package = output / "billing"
    package.mkdir(exist_ok=True)
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()
    (package / "py.typed").touch()


def _replace_changed(source: Path, target: Path) -> None:
    """Copy what differs, then remove what the source does not have (compiled caches excepted)."""
    wanted = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    for name in sorted(wanted):
        new, old = source / name, target / name
        if not old.is_file() or not filecmp.cmp(new, old, shallow=False):
            old.parent.mkdir(parents=True, exist_ok=True)
            new.replace(old)
    for path in sorted(target.rglob("*"), reverse=True):
        relative = path.relative_to(target)
        if relative.parts[0] == source.name or "__pycache__" in relative.parts:
            continue
        if path.is_file() and relative not in wanted:
            path.unlink()
        elif path.is_dir() and not any(child.name != "__pycache__" for child in path.iterdir()):
            shutil.rmtree(path)


if __name__ == "__main__":
    names = generate(Path(__file__).resolve().parent)
    print(f"generated/ made from {len(names)} proto files")  # noqa: T201 -- the answer to whoever ran it
