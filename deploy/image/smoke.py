"""The smoke test of the two images: train into a registry, serve from it, ask, stop.

    sudo python -m deploy.image.smoke WORK          after deploy/image/build.sh; `make image-test`

Every line it prints is something that was seen; it ends with exit code 1 at the first that is not.
"""

import json
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from deploy.image.container import Buildah, Container, Image
from deploy.image.contents import UID, inspect
from deploy.image.wire import Wire

DIM = 64
ROWS, N = 128, 8
BIG_ROWS, BIG_N = 8192, 64
TRAIN = ["train", "--method", "adar", "--registry", "/registry", "--model", "demo"]
TRAIN += ["--threads", "1", "--eval-every", "5"]


class Smoke:
    """Both images, and a folder for what they leave.

    Args:
        buildah: where they were built.
        work: the folder.
    """

    def __init__(self, buildah: Buildah, work: Path) -> None:
        self.service = Image.open(buildah, "localhost/turnpoint-service:test")
        self.trainer = Image.open(buildah, "localhost/turnpoint-trainer:test")
        self.log = work / "smoke.log"
        self.registry = work / f"registry-{secrets.token_hex(4)}"
        self.registry.mkdir()
        self.key, self.keys = secrets.token_hex(16), work / "keys"
        self.keys.write_text(f"smoke:{self.key}\n")
        for path in (self.registry, self.keys):
            os.chown(path, UID, UID)

    def run(self) -> None:
        """All of it, in order."""
        for image in (self.service, self.trainer):
            say(f"{image.name}: {image.size / 1e6:.0f} MB unpacked")
            for what, found in inspect(image).items():
                check(not found, f"{what} ({', '.join(sorted(found)) or 'none'})")
        self.service_without_a_model()
        self.training_to_its_end()
        self.training_that_is_stopped()
        self.service_with_a_model()

    def service_without_a_model(self) -> None:
        """It lives, is not healthy, and says why."""
        wire = Wire(self.key)
        with self._serving(wire) as container:
            await_(lambda: wire.status("/livez") == 200, "alive without a model")
            told = container.run(["python", "-I", "/opt/turnpoint/healthcheck.py"])
            check("no model is published" in told.stderr, f"unhealthy: {told.stderr.strip()}")
            check((code := container.stop()) == 0, f"SIGTERM: exit code {code}")

    def training_to_its_end(self) -> None:
        """It publishes."""
        begin = time.monotonic()
        with self._training("--epochs", "5") as container:
            code = container.outside.wait(300)
        seconds = time.monotonic() - begin
        check(code == 0, f"five epochs of training: exit code {code} after {seconds:.1f} s")
        check((self.registry / "demo" / "LATEST").exists(), "a model is published")

    def training_that_is_stopped(self) -> None:
        """It ends at once and leaves the registry whole."""
        model = self.registry / "demo"
        before = len(list(model.iterdir()))
        endless = ("--epochs", "100000", "--patience", "100000", "--publish-every", "1")
        with self._training(*endless) as container:
            await_(
                lambda: len(list(model.iterdir())) > before + 2, "the next run publishes on the way"
            )
            privileges(container)
            begin = time.monotonic()
            code = container.stop()
        seconds = time.monotonic() - begin
        check(code == 143, f"SIGTERM: exit code {code} after {seconds:.1f} s")
        live = (model / "LATEST").read_text().strip()
        check((model / live / "manifest.json").exists(), f"{live} is live and whole")
        drafts = [path.name for path in model.iterdir() if path.name.startswith(".")]
        check(not drafts, "no draft is left behind")

    def service_with_a_model(self) -> None:
        """It is ready, answers who has a key, shows its metrics, and drains."""
        wire, begin = Wire(self.key), time.monotonic()
        with self._serving(wire) as container:
            await_(lambda: wire.status("/readyz") == 200, "ready")
            say(f"start-up: {time.monotonic() - begin:.1f} s from the first process to /readyz")
            check(container.healthy(), "the image's health check agrees")
            privileges(container)
            touched = container.run(["python", "-c", "open('/opt/turnpoint/x', 'w')"])
            check("Read-only file system" in touched.stderr, "its root is read-only")
            say(f"memory: {container.status()['VmHWM']} at most so far")
            check(Wire("no-such-key", wire.port).ask(ROWS, DIM, N).code == 401, "401 without a key")
            answer = wire.ask(ROWS, DIM, N)
            fits = (answer.code, answer.size) == (200, 4 * ROWS * N * DIM)
            check(fits, f"{ROWS} rows x {DIM}, n = {N}: {answer.size:,} bytes")
            counted = 'turnpoint_requests_total{code="200",route="/negatives"} 1.0'
            check(counted in wire.text("/metrics"), "/metrics counts it")
            self._stop_while_it_works(container, wire)
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        check(all(json.loads(line) for line in lines) and bool(lines), "its log is JSON")

    def _stop_while_it_works(self, container: Container, wire: Wire) -> None:
        """What was accepted is answered."""
        sizes: list[int] = []
        ask = threading.Thread(target=lambda: sizes.append(wire.ask(BIG_ROWS, DIM, BIG_N).size))
        ask.start()
        empty = re.compile(r"^turnpoint_queue_rows 0\.0$", re.M)
        await_(lambda: not empty.search(wire.text("/metrics")), "a large request is being computed")
        code = container.stop()
        ask.join()
        check(sizes == [4 * BIG_ROWS * BIG_N * DIM], f"SIGTERM: it is answered, {sizes[0]:,} bytes")
        check(code == 0, f"then exit code {code}")

    def _serving(self, wire: Wire) -> Container:
        settings = {
            "TURNPOINT_SERVER__PORT": str(wire.port),
            "TURNPOINT_AUTH__KEYS_FILE": "/state/keys",
        }
        mounts = {self.registry: "registry", self.keys.parent: "state"}
        return Container(self.service, environment=settings, mounts=mounts, log=self.log)

    def _training(self, *more: str) -> Container:
        return Container(
            self.trainer, [*TRAIN, *more], mounts={self.registry: "registry"}, log=self.log
        )


def privileges(container: Container) -> None:
    """The process is nobody in particular, is number 1, and can become nothing more."""
    status = container.status()
    wanted = {"NoNewPrivs": "1", "CapEff": "0" * 16, "CapBnd": "0" * 16}
    seen = {name: status[name] for name in wanted}
    uid, inside = status["Uid"].split()[0], status["NSpid"].split()[-1]
    check(
        seen == wanted and uid == str(UID) and inside == "1",
        f"process {inside}, uid {uid}, no capabilities",
    )


def await_(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            check(False, f"{what}, within {seconds:.0f} s")
        time.sleep(0.01)
    say(what)


def check(good: bool, what: str) -> None:
    """Say what was seen, or stop."""
    if not good:
        sys.exit(f"NOT: {what}")
    say(what)


def say(what: str) -> None:
    """A line."""
    print(what, flush=True)


if __name__ == "__main__":
    buildah = Buildah(Path(sys.argv[1]).absolute())
    try:
        Smoke(buildah, Path(sys.argv[1]).absolute()).run()
    finally:
        buildah("rm", "--all")
