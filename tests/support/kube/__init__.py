"""A Kubernetes API server and a kubelet for the tests, in this process; `cluster.FakeCluster` is the way in.

What is like the real thing: objects with uid, creationTimestamp and resourceVersion; list in pages from one snapshot;
watch from a version, through selectors (an object that stops matching is DELETED for that watcher), with bookmarks and
timeoutSeconds; 410 after a compaction, for watches and for continued lists; graceful deletion of pods; merge patches;
409, 404. Pods run: the first container's command, with its environment, is a process of its own, and its end shows in
the pod's status as its restart policy has it.

What it does not do: no TLS, no authentication and no permissions, no admission or validation, no defaults but the few
that clients read, no apply, no strategic merge (lists are replaced), no exec, no logs, no scheduling, no images, no
volumes, no probes (a pod is ready when its process runs), no second container's process. All pods share the machine's
network: each has an address of its own, and `0.0.0.0` in its environment and command is written as that address, since
on a real node it would mean just that.
"""
