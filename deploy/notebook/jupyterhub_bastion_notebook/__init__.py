"""The pod side of jupyterhub-bastion: SSH into one notebook server, for as long as it runs, and not longer."""
