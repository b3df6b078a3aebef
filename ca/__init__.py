"""The vocabulary of trust: names, claims, keys, policy, signing, trust, audit.

Everything here is pure: no socket, no await, no environment, and the time is an argument. The service
(`api`) and the bastion (`bastion`) both stand on it and never import each other.
"""
