"""The node: gives a pod its address, runs its command, and writes into its status what became of it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.kube.store import Key, Missing, Object, Store, merge, timestamp

ANY_ADDRESS = "0.0.0.0"
RESTART_SECONDS = 0.5
END_SECONDS = 5.0


@dataclass
class Running:
    """A container's process."""

    process: subprocess.Popen[bytes]
    descriptor: int
    address: str
    restarts: int


class Kubelet:
    """Runs the pods of one store, on addresses of one network (`127.1.7`: 127.1.7.2 and on)."""

    def __init__(self, store: Store, network: str, folder: Path) -> None:
        self._store = store
        self._addresses = self._free(network)
        self._folder = folder
        self._running: dict[str, Running] = {}
        self._ending: set[str] = set()
        self._seen = store.version
        self._kills: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Start each pod that appears, for ever."""
        while True:
            for change in list(self._store.since(self._seen)):
                self._seen = change.version
                new = change.resource == "pods" and change.before is None
                if new and not (change.after.get("status") or {}).get("podIP"):  # else a test has said how it is
                    self._start(change.after)
            await self._store.changed(60)

    def close(self) -> None:
        """End every process."""
        for task in self._kills:
            task.cancel()
        for uid in list(self._running):
            process = self._forget(uid).process
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            _kill(process)
            process.wait()

    def end(self, key: Key, grace: int) -> None:
        """End a pod: SIGTERM, after `grace` seconds SIGKILL; then it is removed."""
        uid = self._store.get(key)["metadata"]["uid"]
        running = self._running.get(uid)
        self._ending.add(uid)
        if running is None:
            self._store.remove(key)
            return
        if grace == 0:
            _kill(running.process)
        else:
            running.process.send_signal(signal.SIGTERM)
            task = asyncio.get_running_loop().create_task(self._kill_after(uid, grace))
            self._kills.add(task)
            task.add_done_callback(self._kills.discard)

    async def _kill_after(self, uid: str, grace: int) -> None:
        await asyncio.sleep(grace)
        if uid in self._running:
            _kill(self._running[uid].process)

    def _start(self, pod: Object) -> None:
        metadata = pod["metadata"]
        address = next(self._addresses)
        self._launch(pod, address, 0)
        started = {"running": {"startedAt": timestamp()}}
        self._write(
            ("pods", metadata["namespace"], metadata["name"]),
            {
                "phase": "Running",
                "podIP": address,
                "podIPs": [{"ip": address}],
                "hostIP": "127.0.0.1",
                "startTime": timestamp(),
                "conditions": _conditions(ready=True),
                "containerStatuses": _statuses(pod, started, ready=True, restarts=0),
            },
        )

    def _launch(self, pod: Object, address: str, restarts: int) -> None:
        container, metadata = pod["spec"]["containers"][0], pod["metadata"]
        home = self._folder / "home" / metadata["name"]
        home.mkdir(parents=True, exist_ok=True)
        given = {one["name"]: one.get("value") or "" for one in container.get("env") or ()}
        command = [*(container.get("command") or ()), *(container.get("args") or ())] or ["sleep", "infinity"]
        with (self._folder / f"{metadata['name']}.log").open("ab") as log:
            process = subprocess.Popen(
                [word.replace(ANY_ADDRESS, address) for word in command],
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "LANG": "C.UTF-8",
                    "HOME": str(home),
                    **{name: value.replace(ANY_ADDRESS, address) for name, value in given.items()},
                },
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        descriptor = os.pidfd_open(process.pid)
        self._running[metadata["uid"]] = Running(process, descriptor, address, restarts)
        asyncio.get_running_loop().add_reader(descriptor, self._ended, metadata["uid"], pod)

    def _ended(self, uid: str, pod: Object) -> None:
        running = self._forget(uid)
        status = running.process.wait()
        metadata = pod["metadata"]
        key = ("pods", metadata["namespace"], metadata["name"])
        code = status if status >= 0 else 128 - status
        policy = pod["spec"]["restartPolicy"]
        again = policy == "Always" or (policy == "OnFailure" and code != 0)
        ended = {"terminated": {"exitCode": code, "finishedAt": timestamp()}}
        if uid in self._ending:
            self._ending.discard(uid)
            self._write(key, {"containerStatuses": _statuses(pod, ended, ready=False, restarts=running.restarts)})
            with suppress(Missing):
                self._store.remove(key)
        elif again:
            waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
            statuses = _statuses(pod, waiting, ready=False, restarts=running.restarts)
            self._write(key, {"containerStatuses": statuses, "conditions": _conditions(ready=False)})
            asyncio.get_running_loop().call_later(RESTART_SECONDS, self._restart, key, pod, running)
        else:
            statuses = _statuses(pod, ended, ready=False, restarts=running.restarts)
            self._write(key, {"phase": "Failed" if code else "Succeeded", "containerStatuses": statuses})

    def _restart(self, key: Key, pod: Object, ended: Running) -> None:
        if key not in self._store.objects or pod["metadata"]["uid"] in self._ending:
            return
        self._launch(pod, ended.address, ended.restarts + 1)
        started = {"running": {"startedAt": timestamp()}}
        statuses = _statuses(pod, started, ready=True, restarts=ended.restarts + 1)
        self._write(key, {"containerStatuses": statuses, "conditions": _conditions(ready=True)})

    def _forget(self, uid: str) -> Running:
        running = self._running.pop(uid)
        asyncio.get_running_loop().remove_reader(running.descriptor)
        os.close(running.descriptor)
        return running

    def _write(self, key: Key, status: dict[str, Any]) -> None:
        with suppress(Missing):
            self._store.change(key, lambda pod: merge(pod.setdefault("status", {}), status))

    @staticmethod
    def _free(network: str) -> Iterator[str]:
        for last in range(2, 255):
            yield f"{network}.{last}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """As a container's end does: the process, and whatever it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _conditions(*, ready: bool) -> list[dict[str, str]]:
    return [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": str(ready)}]


def _statuses(pod: Object, state: dict[str, Any], *, ready: bool, restarts: int) -> list[dict[str, Any]]:
    return [
        {
            "name": one["name"],
            "image": one.get("image", ""),
            "imageID": "",
            "ready": ready,
            "restartCount": restarts,
            "state": state,
            "lastState": {},
        }
        for one in pod["spec"]["containers"]
    ]


def claim_network() -> tuple[str, socket.socket]:
    """A network of pods (`127.1.N`) that no other run on this machine uses, as long as the socket is open."""
    for third in range(256):
        claim = socket.socket()
        with suppress(OSError):
            claim.bind((f"127.1.{third}.1", 9))
            return f"127.1.{third}", claim
        claim.close()
    raise OSError("every network from 127.1.0 to 127.1.255 is claimed")
