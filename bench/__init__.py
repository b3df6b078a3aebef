"""Why: what the bastion costs is said in ratios to OpenSSH's own sshd as jump host, measured side by side in one run.

`make bench` runs everything and writes the table and the plot of `docs/performance.md`; `python -m bench --only bulk`
runs some of it and prints. The bastion and the sshd that it is compared with have one core, everything else (clients,
the pod's sshd, load generators, the double of the api) has the others.
"""
