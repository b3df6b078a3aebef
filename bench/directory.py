"""What the Kubernetes directory costs: 5,000 pods listed, and 200 changes a second, against an API server of its own.

    python -m bench.directory [--pods 5000] [--rate 200] [--seconds 20]

The API server is the tests' one in a process of its own, so that CPU and memory are the directory's alone. Pods are
about as large as a hub's are, with managed fields. Prints one line of JSON.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bastion.directory.choose import open_directory
from bastion.directory.pods import PodDirectory
from bastion.settings import DirectorySettings
from tests.support.kube.cluster import FakeCluster, pod_object


def large_pod(number: int) -> dict[str, Any]:
    """A pod of some 9 kB, of which most is of no interest here."""
    pod = pod_object(f"jupyter-{number}", f"user{number}", instance=1_700_000_000_000_000 + number)
    pod["spec"]["containers"][0]["env"] = [{"name": f"V{one}", "value": "x" * 60} for one in range(40)]
    pod["metadata"]["managedFields"] = [{"manager": f"m{one}", "fieldsV1": {"f:x": "y" * 400}} for one in range(8)]
    return pod


def serve(pods: int, pipe: Connection) -> None:
    """The cluster's process: makes the pods, then changes one of them for each number that comes in."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = FakeCluster(Path(folder))
        cluster.start()
        for number in range(pods):
            cluster.create(large_pod(number))
        pipe.send(str(cluster.kubeconfig()))
        count = 0
        while (order := pipe.recv()) is not None:
            if order == "relist":
                cluster.kill()
                cluster.compact()
                cluster.restart()
            else:
                began = time.monotonic()
                for one in range(order["rate"] * order["seconds"]):
                    count += 1
                    cluster.patch(f"jupyter-{count % pods}", {"metadata": {"annotations": {"seen": str(count)}}})
                    time.sleep(max(0.0, began + (one + 1) / order["rate"] - time.monotonic()))
            pipe.send("done")
        cluster.stop()


async def measure(arguments: argparse.Namespace, pipe: Connection) -> dict[str, float]:
    """Everything, in one event loop."""
    loop = asyncio.get_running_loop()
    file = await loop.run_in_executor(None, pipe.recv)
    stack = AsyncExitStack()
    directory = await open_directory(DirectorySettings(source="kubernetes", kubeconfig=Path(file)), {}, stack)
    if not isinstance(directory, PodDirectory):
        raise TypeError("the settings name Kubernetes")
    lag = Lag()
    watcher = asyncio.create_task(lag.watch())
    rss, cpu, wall = memory(), time.process_time(), time.monotonic()
    task = asyncio.create_task(directory.run())
    while directory.heard_at is None:
        await asyncio.sleep(0.005)
    found = {
        "pods": len(directory.running()),
        "list_cpu_s": time.process_time() - cpu,
        "list_wall_s": time.monotonic() - wall,
        "list_rss_mb": memory() - rss,
        "list_lag_ms": lag.reset(),
    }
    cpu = time.process_time()
    pipe.send({"rate": arguments.rate, "seconds": arguments.seconds})
    await loop.run_in_executor(None, pipe.recv)
    found |= {
        "changes_cpu_share": (time.process_time() - cpu) / arguments.seconds,
        "changes_lag_ms": lag.reset(),
    }
    lists = directory.lists
    pipe.send("relist")
    await loop.run_in_executor(None, pipe.recv)
    while directory.lists == lists:
        await asyncio.sleep(0.005)
    found |= {"relist_lag_ms": lag.reset(), "rss_added_mb": memory() - rss}
    for one in (task, watcher):
        one.cancel()
        with suppress(asyncio.CancelledError):
            await one
    await stack.aclose()
    pipe.send(None)
    return {name: round(value, 3) for name, value in found.items()}


class Lag:
    """The longest that others wait for the event loop, in milliseconds of this thread's CPU between two turns of a task
    that asks for one every 2 ms: a busy machine adds to the wall clock and not to this."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def watch(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.002)
            self.worst = max(self.worst, time.thread_time() - began)

    def reset(self) -> float:
        worst, self.worst = self.worst * 1000, 0.0
        return worst


def memory() -> float:
    """Resident megabytes now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=20)
    arguments = parser.parse_args()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(arguments.pods, theirs), daemon=True)
    server.start()
    sys.stdout.write(json.dumps(asyncio.run(measure(arguments, ours))) + "\n")
    server.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
