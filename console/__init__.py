"""The operator: command line, admin API, embedded servers and the supervisor of one machine.

    cli/, admin/, embedded/      commands; the admin API; servers and models from wheels

`headrace up`, in the order it happens
    launch       the steps, the data folder         supervisor   keeps processes and servers running
    bootstrap    before and after the rooms         fleet        its processes as values
    errands      steps in a child process           forks        how children are made
    progress     how it talks                       control_socket    how commands reach it
One process
    stack        rooms, groups, layouts             wiring       how each room is opened
    rooms        start to stop sequence             presence     it makes itself known
    join         finds the system it joins          replicas     several of them under one parent
    traffic      which endpoints its router uses
Own servers
    own          whether they may be used           setup        `headrace init`
    schema       `headrace migrate`                 first_keys   the keys a house begins with
What the admin API and the command line do
    config       all settings                       entries      a model as it is asked for
    secrets      key ring and tokens                desks        keys and models, in the safe order
    doctor       what is wrong with this machine    status       what is wrong with the system
    acl          users of Redis by room
    routing      what a router would choose         scan_desk    what the guardrails would find
    topology     streams.yaml                       engine_logs  what local engines write
"""
