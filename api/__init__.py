"""The service that turns a JupyterHub login into an SSH certificate. It alone holds the CA private keys."""
