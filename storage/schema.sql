-- The record, as it is today. Migrations bring an older database here; a test compares the two.
--
--   tenants      organizations                              keys      API keys: MACs of secrets, never secrets
--   facts        every fact once, by (run, kind, attempt)   requests  one row per ended run
--   archives     answers that are kept for a while
--   deployments  what was asked for and how it stands       commands  which orders were carried out
--   replicas     the engines of a deployment, one by one
--   models       public names                               endpoints places that serve them
--
-- What a client sent or a model said is in none of them in clear: frames and bodies of archives are sealed under the key ring.
--
-- Who sees what: tables with a tenant have row-level security, forced. The service works as role headrace_app, which
-- cannot bypass it, and says in each transaction on whose behalf: app.tenant names one tenant; app.scope = 'operator'
-- sees all. With neither, reads find nothing and writes are refused. Facts and requests can only be added.
-- Times are milliseconds since the epoch, 0 = never; money is micros of the currency.

DO $$
BEGIN
    -- whoever may not make roles can migrate when it is there already
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'headrace_app') THEN
        CREATE ROLE headrace_app NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
    END IF;
EXCEPTION
    -- roles belong to the whole server: another database of it may have made this one, also at this moment
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

DO $$
BEGIN
    -- whoever migrates also runs the service, by SET ROLE; before PostgreSQL 16 every member may do that
    IF NOT pg_has_role(current_user, 'headrace_app',
                       CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END) THEN
        GRANT headrace_app TO CURRENT_USER;
    END IF;
    -- batches are staged in temporary tables; some houses take this right from everybody
    IF NOT has_database_privilege('headrace_app', current_database(), 'TEMPORARY') THEN
        EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO headrace_app', current_database());
    END IF;
END
$$;

CREATE TABLE tenants (
    tenant     text PRIMARY KEY CHECK (tenant <> ''),
    created_ms bigint NOT NULL
);

CREATE TABLE keys (
    key_id              text PRIMARY KEY,
    tenant              text NOT NULL REFERENCES tenants,
    name                text NOT NULL,
    secret_mac          text NOT NULL,
    mac_kid             text NOT NULL,
    scopes              text[] NOT NULL,
    models              text[] NOT NULL,
    requests_per_minute integer NOT NULL,
    concurrency         integer NOT NULL,
    weight              integer NOT NULL,
    lane                text NOT NULL,
    on_disconnect       text NOT NULL,
    created_ms          bigint NOT NULL,
    expires_ms          bigint NOT NULL,
    revoked_ms          bigint NOT NULL,
    previous_mac        text NOT NULL,
    previous_mac_kid    text NOT NULL,
    previous_until_ms   bigint NOT NULL,
    priority            integer NOT NULL DEFAULT 0
);
CREATE INDEX keys_tenant ON keys (tenant, created_ms, key_id);

CREATE TABLE facts (
    run     text NOT NULL,
    kind    text NOT NULL,
    attempt integer NOT NULL,
    tenant  text NOT NULL,
    by      text NOT NULL,
    at_ms   bigint NOT NULL,
    detail  jsonb NOT NULL,
    PRIMARY KEY (run, kind, attempt)
);

-- tenant '' is a caller who was never proven: only the operator sees those rows
CREATE TABLE requests (
    run               text PRIMARY KEY,
    tenant            text NOT NULL,
    key_id            text NOT NULL,
    route             text NOT NULL,
    model             text NOT NULL,
    endpoint          text NOT NULL,
    stream            boolean NOT NULL,
    status            integer NOT NULL,
    outcome           text NOT NULL,
    code              text NOT NULL,
    prompt_tokens     bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cached_tokens     bigint NOT NULL,
    estimated         boolean NOT NULL,
    cost_micros       bigint NOT NULL,
    events            bigint NOT NULL,
    ttft_ms           bigint NOT NULL,
    duration_ms       bigint NOT NULL,
    accepted_ms       bigint NOT NULL,
    cleared_ms        bigint NOT NULL,
    claimed_ms        bigint NOT NULL,
    first_ms          bigint NOT NULL,
    ended_ms          bigint NOT NULL,
    attempt           integer NOT NULL,
    client_request_id text NOT NULL,
    verdicts          jsonb NOT NULL,
    attempts          jsonb NOT NULL,
    finish_reason     text NOT NULL,
    unverified        text[] NOT NULL
);
CREATE INDEX requests_tenant ON requests (tenant, ended_ms DESC, run DESC);
CREATE INDEX requests_ended ON requests (ended_ms DESC, run DESC);
CREATE INDEX requests_key ON requests (key_id, ended_ms DESC, run DESC);

-- once: the name of an Idempotency-Key, '' = there was none; the first answer under it counts
CREATE TABLE archives (
    run        text PRIMARY KEY,
    tenant     text NOT NULL,
    key_id     text NOT NULL,
    once       text NOT NULL,
    asked      text NOT NULL,
    stream     boolean NOT NULL,
    frames     bytea NOT NULL,
    ended_ms   bigint NOT NULL,
    expires_ms bigint NOT NULL,
    route      text NOT NULL DEFAULT '',
    background boolean NOT NULL DEFAULT false,
    accepted_ms bigint NOT NULL DEFAULT 0,
    body       bytea NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX archives_once ON archives (once) WHERE once <> '';
CREATE INDEX archives_expires ON archives (expires_ms);

CREATE TABLE deployments (
    deployment     text PRIMARY KEY,
    command_id     text NOT NULL UNIQUE,
    name           text NOT NULL,
    target         text NOT NULL,
    pool           text NOT NULL,
    state          text NOT NULL,
    reason         text NOT NULL,
    url            text NOT NULL,
    upstream_model text NOT NULL,
    credential     text NOT NULL,
    slots          integer NOT NULL,
    weight         integer NOT NULL,
    private        boolean NOT NULL,
    command        text[] NOT NULL,
    pid            integer NOT NULL,
    created_ms     bigint NOT NULL,
    updated_ms     bigint NOT NULL,
    replicas       integer NOT NULL DEFAULT 1,
    restart        text NOT NULL DEFAULT 'always',
    drain          boolean NOT NULL DEFAULT true,
    continues      text NOT NULL DEFAULT '',
    on_disconnect  text NOT NULL DEFAULT '',
    speaks         text[] NOT NULL DEFAULT '{chat}'
);

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

-- done_ms 0: begun and not known to be finished, so whoever receives the command again does it again
CREATE TABLE commands (
    command_id text PRIMARY KEY,
    kind       text NOT NULL,
    deployment text NOT NULL,
    begun_ms   bigint NOT NULL,
    done_ms    bigint NOT NULL DEFAULT 0
);

CREATE TABLE models (
    name     text PRIMARY KEY,
    pool     text NOT NULL,
    created  bigint NOT NULL,
    owned_by text NOT NULL,
    on_disconnect text NOT NULL DEFAULT ''
);

CREATE TABLE endpoints (
    endpoint       text PRIMARY KEY,
    deployment     text NOT NULL,
    pool           text NOT NULL,
    model          text NOT NULL,
    url            text NOT NULL,
    upstream_model text NOT NULL,
    credential     text NOT NULL,
    slots          integer NOT NULL,
    weight         integer NOT NULL,
    up             boolean NOT NULL,
    private        boolean NOT NULL,
    continues      text NOT NULL DEFAULT '',
    speaks         text[] NOT NULL DEFAULT '{chat}'
);
CREATE INDEX endpoints_pool ON endpoints (pool, endpoint);

-- The settings stand in subqueries, so they are read once a statement, and the planner does not take the operator's view
-- for a narrow one (it would choose to sort the whole table for a page).
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON tenants USING (tenant = (SELECT NULLIF(current_setting('app.tenant', true), '')));
CREATE POLICY of_operator ON tenants USING ((SELECT current_setting('app.scope', true) = 'operator'));

ALTER TABLE keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE keys FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON keys USING (tenant = (SELECT NULLIF(current_setting('app.tenant', true), '')));
CREATE POLICY of_operator ON keys USING ((SELECT current_setting('app.scope', true) = 'operator'));

ALTER TABLE facts ENABLE ROW LEVEL SECURITY;
ALTER TABLE facts FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON facts USING (tenant = (SELECT NULLIF(current_setting('app.tenant', true), '')));
CREATE POLICY of_operator ON facts USING ((SELECT current_setting('app.scope', true) = 'operator'));

ALTER TABLE requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE requests FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON requests USING (tenant = (SELECT NULLIF(current_setting('app.tenant', true), '')));
CREATE POLICY of_operator ON requests USING ((SELECT current_setting('app.scope', true) = 'operator'));

ALTER TABLE archives ENABLE ROW LEVEL SECURITY;
ALTER TABLE archives FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON archives USING (tenant = (SELECT NULLIF(current_setting('app.tenant', true), '')));
CREATE POLICY of_operator ON archives USING ((SELECT current_setting('app.scope', true) = 'operator'));

GRANT USAGE ON SCHEMA public TO headrace_app;
GRANT SELECT, INSERT ON tenants, facts, requests TO headrace_app;
GRANT SELECT, INSERT, DELETE ON archives TO headrace_app;
GRANT SELECT, INSERT, UPDATE ON keys, commands TO headrace_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON deployments, replicas, models, endpoints TO headrace_app;
