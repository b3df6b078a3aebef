"""The HTTP side: the few paths of the Kubernetes API that JupyterHub's spawner, kubectl and the bastion use."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.support.kube.matching import fields_match, labels_match
from tests.support.kube.store import Exists, Key, Missing, Object, Store, line, merge, timestamp

KINDS = {
    "pods": "Pod",
    "events": "Event",
    "secrets": "Secret",
    "services": "Service",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "namespaces": "Namespace",
    "configmaps": "ConfigMap",
}
BOOKMARK_SECONDS = 60.0


@dataclass(eq=False)
class Watch:
    """One watch request. `cut`: the way back to its client is gone, and neither side is told."""

    selector: str
    cut: bool = False

    async def unless_cut(self) -> None:
        if self.cut:
            await asyncio.Event().wait()


class ApiServer:
    """Answers for one store. `end_pod` is told of pods that are to end."""

    def __init__(self, store: Store, end_pod: Callable[[Key, int], None]) -> None:
        self.store = store
        self._end_pod = end_pod
        self._watches: set[Watch] = set()
        self.hung = False
        self.requests: list[str] = []

    def app(self) -> web.Application:
        app = web.Application(client_max_size=8 << 20)
        one = "/api/v1/namespaces/{namespace}/{resource}/{name}"
        app.router.add_get("/version", self._version)
        app.router.add_get("/api", self._versions)
        app.router.add_get("/apis", self._groups)
        app.router.add_get("/api/v1", self._resources)
        for path in ("/api/v1/{resource}", "/api/v1/namespaces/{namespace}/{resource}"):
            app.router.add_get(path, self._collection)
            app.router.add_post(path, self._create)
        app.router.add_get(one, self._get)
        app.router.add_patch(one, self._patch)
        app.router.add_delete(one, self._delete)
        return app

    # -- discovery, for kubectl

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"major": "1", "minor": "34", "gitVersion": "v1.34.0-fake"})

    async def _versions(self, _: web.Request) -> web.Response:
        return web.json_response({"kind": "APIVersions", "versions": ["v1"]})

    async def _groups(self, _: web.Request) -> web.Response:
        return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})

    async def _resources(self, _: web.Request) -> web.Response:
        verbs = ["get", "list", "watch", "create", "patch", "delete"]
        resources = [
            {"name": name, "singularName": "", "namespaced": name != "namespaces", "kind": kind, "verbs": verbs}
            for name, kind in KINDS.items()
        ]
        return web.json_response({"kind": "APIResourceList", "groupVersion": "v1", "resources": resources})

    # -- collections

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["resource"] not in KINDS:
            return _status(404, "NotFound", "the server could not find the requested resource")
        self.requests.append(request.path_qs)
        if self.hung:
            await asyncio.Event().wait()
        if request.query.get("watch", "").lower() in ("true", "1"):
            return await self._watch(request)
        return self._list(request)

    def _list(self, request: web.Request) -> web.Response:
        if token := request.query.get("continue"):
            version, after = json.loads(base64.b64decode(token))
            if version not in self.store.snapshots:
                return _expired()
            matching = self.store.snapshots[version]
        else:
            version, after, matches = self.store.version, 0, _matcher(request)
            resource = request.match_info["resource"]
            matching = [one for key, one in self.store.objects.items() if key[0] == resource and matches(one)]
        limit = int(request.query.get("limit") or 0) or len(matching)
        metadata: dict[str, Any] = {"resourceVersion": str(version)}
        if after + limit < len(matching):
            self.store.snapshots[version] = matching
            metadata["continue"] = base64.b64encode(json.dumps([version, after + limit]).encode()).decode()
        kind = KINDS[request.match_info["resource"]] + "List"
        items = matching[after : after + limit]
        return web.json_response({"kind": kind, "apiVersion": "v1", "metadata": metadata, "items": items})

    def cut(self, selector: str) -> None:
        """Cut each watch whose selector contains this."""
        for watch in self._watches:
            watch.cut = watch.cut or selector in watch.selector

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        version = int(request.query.get("resourceVersion") or 0)
        if 0 < version < self.store.compacted:
            await response.write(line("ERROR", _expired_body()))
            return response
        watch = Watch(request.query.get("labelSelector", ""))
        self._watches.add(watch)
        try:
            await self._stream(request, response, watch, version)
        finally:
            self._watches.discard(watch)
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse, watch: Watch, version: int) -> None:
        resource, matches = request.match_info["resource"], _matcher(request)
        if version == 0:
            version = self.store.version
            for key, one in list(self.store.objects.items()):
                if key[0] == resource and matches(one):
                    await response.write(line("ADDED", one))
        loop = asyncio.get_running_loop()
        end = loop.time() + float(request.query.get("timeoutSeconds") or 1800)
        bookmarks = request.query.get("allowWatchBookmarks", "").lower() in ("true", "1")
        due = loop.time() + BOOKMARK_SECONDS
        while (now := loop.time()) < end:
            await watch.unless_cut()
            for change in list(self.store.since(version)):
                version = change.version
                seen = change.seen_by(matches) if change.resource == resource else None
                if seen is not None:
                    await response.write(line(*seen))
            if bookmarks and now >= due:
                due = now + BOOKMARK_SECONDS
                await response.write(line("BOOKMARK", _bookmark(resource, version)))
            if version == self.store.version:
                await self.store.changed(min(end, due) - now)
        await watch.unless_cut()
        if bookmarks:
            await response.write(line("BOOKMARK", _bookmark(resource, version)))

    async def _create(self, request: web.Request) -> web.Response:
        resource, thing = request.match_info["resource"], await request.json()
        metadata = thing.setdefault("metadata", {})
        name = metadata.get("name") or f"{metadata.get('generateName', 'x-')}{secrets.token_hex(3)}"
        try:
            return web.json_response(
                self.make(resource, request.match_info.get("namespace", ""), name, thing), status=201
            )
        except Exists:
            return _status(409, "AlreadyExists", f'{resource} "{name}" already exists')

    def make(self, resource: str, namespace: str, name: str, thing: Object) -> Object:
        """Create an object as the API does."""
        if resource == "pods":
            thing = {"status": {"phase": "Pending"}, **thing}
            thing["spec"] = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, **thing.get("spec", {})}
        return self.store.create((resource, namespace, name), KINDS[resource], thing)

    # -- single objects

    async def _get(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(self.store.get(_key(request)))
        except Missing as missing:
            return _status(404, "NotFound", f"{missing} not found")

    async def _patch(self, request: web.Request) -> web.Response:
        patch = await request.json()
        try:
            return web.json_response(self.store.change(_key(request), lambda thing: merge(thing, patch)))
        except Missing as missing:
            return _status(404, "NotFound", f"{missing} not found")

    async def _delete(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        grace = request.query.get("gracePeriodSeconds", (body or {}).get("gracePeriodSeconds"))
        try:
            return web.json_response(self.delete(_key(request), None if grace is None else int(grace)))
        except Missing as missing:
            return _status(404, "NotFound", f"{missing} not found")

    def delete(self, key: Key, grace: int | None = None) -> Object:
        """Delete an object as the API does: a pod is marked first, and removed when its processes have ended."""
        thing = self.store.get(key)
        if key[0] != "pods":
            return self.store.remove(key)
        if grace is None:
            grace = int(thing["spec"]["terminationGracePeriodSeconds"])
        if "deletionTimestamp" not in thing["metadata"]:
            mark = {"deletionTimestamp": timestamp(), "deletionGracePeriodSeconds": grace}
            thing = self.store.change(key, lambda pod: pod["metadata"].update(mark))
        self._end_pod(key, grace)
        return thing


def _key(request: web.Request) -> Key:
    info = request.match_info
    return info["resource"], info["namespace"], info["name"]


def _matcher(request: web.Request) -> Callable[[Object], bool]:
    namespace = request.match_info.get("namespace")
    labels, fields = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")

    def matches(thing: Object) -> bool:
        here = namespace is None or thing["metadata"].get("namespace") == namespace
        return here and labels_match(thing, labels) and fields_match(thing, fields)

    return matches


def _bookmark(resource: str, version: int) -> Object:
    return {"kind": KINDS[resource], "apiVersion": "v1", "metadata": {"resourceVersion": str(version)}}


def _status_body(code: int, reason: str, message: str) -> Object:
    meaning = {"status": "Failure", "message": message, "reason": reason, "code": code}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, **meaning}


def _status(code: int, reason: str, message: str) -> web.Response:
    return web.json_response(_status_body(code, reason, message), status=code)


def _expired_body() -> Object:
    return _status_body(410, "Expired", "too old resource version")


def _expired() -> web.Response:
    return web.json_response(_expired_body(), status=410)
