"""Why: the news of a stop in a cluster is an event of a watch, so there is a cluster whose every event is ours to time.

It is the tests' API server, asked over HTTP by the bastion's own watch. Its pods are not run: each of them is the
stage's one sshd, in another run of the server.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.stage import SERVER, Stage
from tests.support.kube.cluster import FakeCluster, pod_object
from tests.support.kube.store import timestamp


@dataclass(slots=True)
class Pods:
    """The server's pods: one at a time, of the run that is listed."""

    stage: Stage
    cluster: FakeCluster
    listed: int | None = None

    @property
    def settings(self) -> Mapping[str, str]:
        """The bastion's, for this cluster; how it watches is its default."""
        return {
            "BASTION_DIRECTORY_SOURCE": "kubernetes",
            "BASTION_DIRECTORY_KUBECONFIG": str(self.cluster.kubeconfig()),
            "BASTION_DIRECTORY_SSH_PORT": str(self.stage.pod.port),
            "BASTION_DIRECTORY_KEY_PORT": "9",
            "BASTION_DIRECTORY_UNIX_USER": getpass.getuser(),
        }

    def list_run(self, number: int | None) -> None:
        """A pod of this run; with None the delete event of the one that is there: marked, it ends when it likes."""
        if number is None:
            self.cluster.patch(
                f"jupyter-{self.listed}",
                {"metadata": {"deletionTimestamp": timestamp(), "deletionGracePeriodSeconds": 30}},
            )
            return
        if self.listed is not None:
            self.cluster.delete(f"jupyter-{self.listed}", grace=0)
        self.listed = number
        instance = self.stage.instance(number)
        self.cluster.create(
            pod_object(f"jupyter-{number}", SERVER.owner, SERVER.name, address="127.0.0.1", instance=instance.id)
        )


@contextmanager
def pods(stage: Stage, first: int) -> Iterator[Pods]:
    """A cluster with a pod of run `first`."""
    folder = stage.folder / "cluster"
    folder.mkdir(exist_ok=True)
    cluster = FakeCluster(Path(folder))
    cluster.start()
    try:
        made = Pods(stage, cluster)
        made.list_run(first)
        yield made
    finally:
        cluster.stop()
