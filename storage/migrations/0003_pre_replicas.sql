-- How many engines a deployment has, what follows when one ends, and how each of them stands. Code that knows nothing of
-- it writes rows with one engine.
ALTER TABLE deployments
    ADD COLUMN replicas integer NOT NULL DEFAULT 1,
    ADD COLUMN restart text NOT NULL DEFAULT 'always',
    ADD COLUMN drain boolean NOT NULL DEFAULT true;

CREATE TABLE replicas (
    deployment text NOT NULL REFERENCES deployments ON DELETE CASCADE,
    replica    integer NOT NULL,
    command_id text NOT NULL,
    state      text NOT NULL,
    reason     text NOT NULL,
    url        text NOT NULL,
    pid        integer NOT NULL,
    restarts   integer NOT NULL,
    updated_ms bigint NOT NULL,
    PRIMARY KEY (deployment, replica)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON replicas TO headrace_app;
