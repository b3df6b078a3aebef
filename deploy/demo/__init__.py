"""Why: whoever hears of this project should have a shell in a notebook server within minutes, on one machine.

`python -m deploy.demo` starts a real JupyterHub, the api and the bastion on loopback ports and says what to type;
`--check` types it itself. Everything it makes is in one private folder and below one process, and ends with it.
"""
