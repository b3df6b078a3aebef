"""The SSH side: who may enter, which pod, and the relay to it. It holds CA public keys only, never a private one."""
