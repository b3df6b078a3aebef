"""Which servers run, and where: one table, fed by the api's list or by a Kubernetes watch."""
