"""Room 5: what should be running, what is running, and the steps from one to the other.

    Reads    commands            DeployModel, StopDeployment (published by the console)
    Group    provisioner
    Writes   control             CatalogChanged, after the catalog (models and endpoints in Redis) has changed
             deployments, commands in PostgreSQL: what was asked for, its state and the reason
    Refuses  nothing: a deployment that cannot run stands as `failed` with its reason
    Owns     the engines it started on this machine, and the health of every endpoint

The tour: rules.py (desired and observed -> steps, pure), handlers.py (a command becomes desired state),
reconcile.py (observes, plans, acts, every few seconds), targets/ (one file per place where engines run), app.py.
"""
