"""Which source the running servers come from is a setting; this makes the directory for it."""

import gc
from collections.abc import Mapping
from contextlib import AsyncExitStack

from bastion.directory.enrolled import EnrolledDirectory
from bastion.directory.pods import PodDirectory
from bastion.directory.podspec import PodRules
from bastion.settings import DirectorySettings


async def open_directory(
    settings: DirectorySettings, environment: Mapping[str, str], stack: AsyncExitStack
) -> EnrolledDirectory | PodDirectory:
    """The directory of the settings; `stack` closes it. Raises `BastionError` with a sentence if it cannot be made.

    Nothing is asked yet: a Kubernetes API that is away now is waited for later.
    """
    if settings.source == "hub":
        return EnrolledDirectory()
    # The client takes half a second and 50 MB to import: only where it is used.
    from bastion.directory.kube import Access, Cluster, configuration  # noqa: PLC0415

    access = Access(settings.kubeconfig, settings.kube_api_host, settings.kube_api_port, settings.service_account)
    cluster = Cluster(await configuration(access, environment))
    stack.push_async_callback(cluster.aclose)
    settle()
    rules = PodRules(
        namespaces=settings.namespaces,
        ssh_port=settings.ssh_port,
        key_port=settings.key_port,
        unix_user=settings.unix_user,
    )
    return PodDirectory(cluster, rules, settings.selector, watch_seconds=settings.watch_seconds, settled=settle)


def settle() -> None:
    """What is in memory now is not searched for garbage any more: the client's hundreds of modules, then thousands of
    pods, which go by themselves. The search would stop everybody for a tenth of a second, again and again while a long
    list is read."""
    gc.collect()
    gc.freeze()
