"""Runs a Prefect server of another version, in an environment of its own, on a free port and SQLite."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.compat.versions import environment

from pilotage.flows.dev import supervised_child
from pilotage.flows.dev.embedded import Child, EmbeddedPrefect


class OtherPrefect(EmbeddedPrefect):
    """A server of one version, as its own command starts it; it dies with the process that started it."""

    def __init__(self, home: Path, version: str) -> None:
        super().__init__(home)
        self.version = version
        self._python = environment(version)

    def _spawn(
        self, name: str, command: Sequence[str], more: Mapping[str, str], *, tethered: bool = True
    ) -> Child:
        arguments = command[command.index("prefect") :]
        self.log_directory.mkdir(parents=True, exist_ok=True)
        log = self.log_directory / f"{name}.log"
        with log.open("ab") as sink:
            process = subprocess.Popen(
                # -P: beside the tether lie modules of ours, whose names must not hide others
                [str(self._python), "-P", str(supervised_child.__file__), str(os.getpid()), *arguments],
                cwd=self.home,
                env={**self.env, **more},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child = Child(name=name, process=process, log=log)
        self._children.append(child)
        return child
