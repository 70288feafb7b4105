"""Room 5: what should be running, what is running, and the steps from one to the other.

    Reads    commands            DeployModel, ScaleDeployment, StopDeployment (published by the console)
    Group    provisioner
    Writes   control             CatalogChanged, after the catalog (models and endpoints in Redis) has changed
             deployments, replicas, commands in PostgreSQL: what was asked for, its state and the reason
    Refuses  nothing: a deployment that cannot run stands as `failed` with its reason
    Owns     the engines it started on this machine, and the health of every endpoint

The tour: wishes.py (a command becomes desired state, pure), rules.py (desired and observed -> the steps of one replica,
pure), standing.py (replicas -> how the deployment stands, pure), handlers.py, reconcile.py (every few seconds: look,
plan, act), hands.py (looks and acts), targets/ (one file per place where engines run), app.py.
"""
