"""A built image run as Docker would run it, with what every Linux has: namespaces, mounts, chroot.

What the image declares is what happens: its environment, entry point, user and health check. Its
root is read-only but for /tmp and the given mounts; the process is number 1 of its own, has no
capabilities and can gain none. The network is the host's. Needs root, and `buildah`, `unshare`.
"""

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Runs in new mount and process namespaces; what it ends in is process 1.
ENTER = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
mount -t proc proc "$ROOT/proc"
for device in null zero random urandom; do
    mount --bind /dev/$device "$ROOT/dev/$device"
done
for mounted in $MOUNTS; do mount --bind "${mounted%%:*}" "$ROOT/${mounted#*:}"; done
mount -o remount,bind,ro "$ROOT"
cd "$ROOT"
exec env -i sh -c "$COMMAND"
"""


class Buildah:
    """`buildah` with its storage in a folder of ours."""

    def __init__(self, work: Path) -> None:
        self.base = ["buildah", "--root", f"{work}/storage", "--runroot", f"{work}/run"]

    def __call__(self, *arguments: str) -> str:
        """What it prints."""
        return subprocess.run(
            [*self.base, *arguments], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()


@dataclass(frozen=True)
class Image:
    """A built image, mounted.

    Attributes:
        name: as buildah knows it.
        root: where its file system is.
        config: its declaration, with Docker's names: Env, Entrypoint, Cmd, User, Healthcheck.
        size: bytes, unpacked.
    """

    name: str
    root: Path
    config: Mapping[str, Any]
    size: int

    @classmethod
    def open(cls, buildah: Buildah, name: str) -> "Image":
        """Mount it; `buildah rm --all` ends that."""
        told = json.loads(buildah("inspect", "--type", "image", name))
        root = Path(buildah("mount", buildah("from", name)))
        (listed,) = json.loads(buildah("images", "--json", name))
        for device in ("null", "zero", "random", "urandom"):
            (root / "dev" / device).touch()
        return cls(name, root, told["Docker"]["config"], _bytes(listed["size"]))

    def environment(self, more: Mapping[str, str]) -> list[str]:
        """`NAME=value`, declared and given."""
        return [*self.config["Env"], *(f"{name}={value}" for name, value in more.items())]


class Container:
    """A running process of an image; a context manager that kills what is left.

    Args:
        image: what to run.
        command: in place of the declared one.
        environment: beside the declared one.
        mounts: folder or file of the host -> path in the container, which must exist there.
        log: file for what it writes.
    """

    def __init__(
        self,
        image: Image,
        command: list[str] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[Path, str] | None = None,
        log: Path,
    ) -> None:
        self.image, self.log = image, log
        self.variables = image.environment(environment or {})
        argv = [*image.config["Entrypoint"], *(command or image.config["Cmd"])]
        mounted = " ".join(f"{source}:{target}" for source, target in (mounts or {}).items())
        script = {"ROOT": str(image.root), "MOUNTS": mounted, "COMMAND": self._entering(argv)}
        with log.open("w") as output:
            self.outside = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", ENTER],
                env={**os.environ, **script},
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_: object) -> None:
        self.outside.kill()
        self.outside.wait()

    @property
    def pid(self) -> int:
        """Process 1, as the host numbers it."""
        children = Path(f"/proc/{self.outside.pid}/task/{self.outside.pid}/children").read_text()
        return int(children.split()[0])

    def status(self) -> dict[str, str]:
        """What the kernel says of process 1: Uid, CapEff, NoNewPrivs, VmHWM, ..."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        """A second process beside the first, like `docker exec`."""
        inside = ["nsenter", "--target", str(self.pid), "--mount", "--pid"]
        return subprocess.run(
            [*inside, "sh", "-c", self._entering(argv)],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def healthy(self) -> bool:
        """What the declared health check says."""
        kind, *argv = self.image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.run(argv).returncode == 0

    def stop(self, number: int = signal.SIGTERM, timeout: float = 60) -> int:
        """Send the signal to process 1; its exit code."""
        os.kill(self.pid, number)
        return self.outside.wait(timeout)

    def _entering(self, argv: list[str]) -> str:
        """A shell line that becomes `argv` in the image, as its user and with nothing more."""
        uid, _, gid = self.image.config["User"].partition(":")
        become = ["chroot", str(self.image.root), "setpriv", "--reuid", uid, "--regid", gid]
        become += ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        become += ["env", "-i", "-C", self.image.config["WorkingDir"], *self.variables]
        return "exec " + shlex.join(["/usr/sbin/" + become[0], *become[1:], *argv])


def _bytes(size: str) -> int:
    """`892 MB` as a number."""
    number, unit = size.split()
    return int(float(number) * 1000 ** ["B", "KB", "MB", "GB"].index(unit))
