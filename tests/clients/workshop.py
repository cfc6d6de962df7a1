"""Where a client in another language is generated, built and run: a copy of its sources in .build/."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tests.clients.served_engine import ServedEngine

PROTOS = Path(__file__).parents[2] / "protos"
BUILD = Path(__file__).parent / ".build"

# What every client does, in this order; each of its lines begins with the name of a step.
STEPS = [
    "health",
    "wrong key",
    "catalog",
    "customer",
    "subscription",
    "decline",
    "violations",
    "stream",
    "resume",
    "filter",
    "deadline",
]

# A first build downloads compilers and libraries.
_BUILD_SECONDS = 900
_RUN_SECONDS = 240


class Workshop:
    """The folder of one language's client, and the commands that are run in it."""

    def __init__(self, language: str, tools: Sequence[str], keep: Collection[str] = ()) -> None:
        """Check that the tools are there, and copy the sources; what `keep` names stays from the last build."""
        for tool in tools:
            assert shutil.which(tool), f"The client in {language} needs {tool}, which is not on PATH."
        self.folder = BUILD / language
        self.folder.mkdir(parents=True, exist_ok=True)
        for entry in self.folder.iterdir():
            if entry.is_dir() and entry.name not in keep:
                shutil.rmtree(entry)
            elif not entry.is_dir():
                entry.unlink()
        # Times of change are copied too: build tools go by them.
        shutil.copytree(Path(__file__).parent / language, self.folder, dirs_exist_ok=True)

    def build(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Run a step of the build."""
        self._run(command, environment or {}, _BUILD_SECONDS)

    def check(self, command: Sequence[str], engine: ServedEngine) -> None:
        """Run the client: it must take every step and meet no surprise."""
        told = self._run(
            command,
            {"BILLING_TARGET": engine.target, "BILLING_API_KEY": engine.api_key, "BILLING_PROTOS": str(PROTOS)},
            _RUN_SECONDS,
        )
        print(told)
        assert [line.partition(":")[0] for line in told.splitlines()] == STEPS, told

    def _run(self, command: Sequence[str], environment: Mapping[str, str], seconds: int) -> str:
        """Standard output of a command; raises AssertionError with all that it said unless its status is 0."""
        shown = " ".join(command)
        try:
            finished = subprocess.run(
                command,
                cwd=self.folder,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{shown}\ntook over {seconds} s:\n{error.stdout!r}\n{error.stderr!r}") from error
        said = f"{shown}\nended with status {finished.returncode}:\n{finished.stdout}{finished.stderr}"
        assert finished.returncode == 0, said
        return finished.stdout
