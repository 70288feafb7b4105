-- Every statement of the service, by name. `-- name: what it does` begins one, a semicolon at a line's end ends it.
-- Values are parameters, always.

-- enter: say on whose behalf this transaction works; $1 tenant or '', $2 'operator' or ''
SELECT set_config('app.tenant', $1, true), set_config('app.scope', $2, true);

-- plan_for_values: plan the optional filters of a list for the values at hand
SELECT set_config('plan_cache_mode', 'force_custom_plan', true);

-- ready: whether the schema is there
SELECT count(*) FROM requests WHERE run = '';

-- create_tenant: note a tenant, once
INSERT INTO tenants (tenant, created_ms) VALUES ($1, $2) ON CONFLICT (tenant) DO NOTHING;

-- create_key: a new key; no row comes back when the id is taken
INSERT INTO keys (
    key_id, tenant, name, secret_mac, mac_kid, scopes, models, requests_per_minute, concurrency, weight, lane,
    on_disconnect, created_ms, expires_ms, revoked_ms, previous_mac, previous_mac_kid, previous_until_ms, priority
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
ON CONFLICT (key_id) DO NOTHING
RETURNING key_id;

-- find_key: one key by its id
SELECT key_id, tenant, name, secret_mac, mac_kid, scopes, models, requests_per_minute, concurrency, weight, lane,
    on_disconnect, created_ms, expires_ms, revoked_ms, previous_mac, previous_mac_kid, previous_until_ms, priority
FROM keys WHERE key_id = $1;

-- list_keys: all keys of a tenant, or of everybody when $1 is null; oldest first
SELECT key_id, tenant, name, secret_mac, mac_kid, scopes, models, requests_per_minute, concurrency, weight, lane,
    on_disconnect, created_ms, expires_ms, revoked_ms, previous_mac, previous_mac_kid, previous_until_ms, priority
FROM keys WHERE ($1::text IS NULL OR tenant = $1)
ORDER BY tenant COLLATE "C", created_ms, key_id COLLATE "C";

-- rotate_key: a new secret; the old one stays valid until $4. Not for revoked keys.
UPDATE keys SET
    previous_mac = secret_mac, previous_mac_kid = mac_kid, previous_until_ms = $4, secret_mac = $2, mac_kid = $3
WHERE key_id = $1 AND revoked_ms = 0
RETURNING key_id, tenant, name, secret_mac, mac_kid, scopes, models, requests_per_minute, concurrency, weight, lane,
    on_disconnect, created_ms, expires_ms, revoked_ms, previous_mac, previous_mac_kid, previous_until_ms, priority;

-- revoke_key: end a key for ever; the first time counts
UPDATE keys SET revoked_ms = CASE WHEN revoked_ms = 0 THEN $2 ELSE revoked_ms END
WHERE key_id = $1
RETURNING key_id, tenant, name, secret_mac, mac_kid, scopes, models, requests_per_minute, concurrency, weight, lane,
    on_disconnect, created_ms, expires_ms, revoked_ms, previous_mac, previous_mac_kid, previous_until_ms, priority;

-- put_deployment: what is asked for and how it stands, new or replaced
INSERT INTO deployments (
    deployment, command_id, name, target, pool, state, reason, url, upstream_model, credential, slots, weight, private,
    command, pid, created_ms, updated_ms, replicas, restart, drain, continues,
    on_disconnect, speaks
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
    $23)
ON CONFLICT (deployment) DO UPDATE SET
    command_id = excluded.command_id, name = excluded.name, target = excluded.target, pool = excluded.pool,
    state = excluded.state, reason = excluded.reason, url = excluded.url, upstream_model = excluded.upstream_model,
    credential = excluded.credential, slots = excluded.slots, weight = excluded.weight, private = excluded.private,
    command = excluded.command, pid = excluded.pid, updated_ms = excluded.updated_ms, replicas = excluded.replicas,
    restart = excluded.restart, drain = excluded.drain, continues = excluded.continues,
    on_disconnect = excluded.on_disconnect, speaks = excluded.speaks;

-- find_deployment: one deployment by its id
SELECT deployment, command_id, name, target, pool, state, reason, url, upstream_model, credential, slots, weight,
    private, command, pid, created_ms, updated_ms, replicas, restart, drain, continues,
    on_disconnect, speaks
FROM deployments WHERE deployment = $1;

-- list_deployments: all of them, oldest first
SELECT deployment, command_id, name, target, pool, state, reason, url, upstream_model, credential, slots, weight,
    private, command, pid, created_ms, updated_ms, replicas, restart, drain, continues,
    on_disconnect, speaks
FROM deployments ORDER BY created_ms, deployment COLLATE "C";

-- set_deployment_state: move a deployment on, with the reason and its process; $6: only while this is its last command
UPDATE deployments SET state = $2, reason = $3, pid = $4, updated_ms = $5
WHERE deployment = $1 AND ($6::text IS NULL OR command_id = $6)
RETURNING deployment, command_id, name, target, pool, state, reason, url, upstream_model, credential, slots, weight,
    private, command, pid, created_ms, updated_ms, replicas, restart, drain, continues,
    on_disconnect, speaks;

-- put_replica: how one engine of a deployment stands, new or replaced; nothing when the deployment is gone
INSERT INTO replicas (deployment, replica, command_id, state, reason, url, pid, restarts, updated_ms)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9 WHERE EXISTS (SELECT FROM deployments WHERE deployment = $1)
ON CONFLICT (deployment, replica) DO UPDATE SET
    command_id = excluded.command_id, state = excluded.state, reason = excluded.reason, url = excluded.url,
    pid = excluded.pid, restarts = excluded.restarts, updated_ms = excluded.updated_ms;

-- list_replicas: the engines of a deployment, or of all when $1 is null
SELECT deployment, replica, command_id, state, reason, url, pid, restarts, updated_ms
FROM replicas WHERE ($1::text IS NULL OR deployment = $1)
ORDER BY deployment COLLATE "C", replica;

-- remove_replica: forget an engine
DELETE FROM replicas WHERE deployment = $1 AND replica = $2;

-- remove_deployment: forget a deployment
DELETE FROM deployments WHERE deployment = $1;

-- begin_command: note a command, once; a row comes back only the first time
INSERT INTO commands (command_id, kind, deployment, begun_ms) VALUES ($1, $2, $3, $4)
ON CONFLICT (command_id) DO NOTHING
RETURNING command_id;

-- command_done_ms: when a known command was finished, 0 = not yet
SELECT done_ms FROM commands WHERE command_id = $1;

-- finish_command: it was carried out; the first time counts
UPDATE commands SET done_ms = $2 WHERE command_id = $1 AND done_ms = 0;

-- put_model: a public name, new or replaced
INSERT INTO models (name, pool, created, owned_by, on_disconnect) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (name) DO UPDATE SET pool = excluded.pool, created = excluded.created, owned_by = excluded.owned_by,
    on_disconnect = excluded.on_disconnect;

-- list_models: all public names
SELECT name, pool, created, owned_by, on_disconnect FROM models ORDER BY name COLLATE "C";

-- remove_models: take names away
DELETE FROM models WHERE name = ANY($1::text[]);

-- put_endpoint: a place that serves a pool, new or replaced
INSERT INTO endpoints (endpoint, deployment, pool, model, url, upstream_model, credential, slots, weight, up,
    private, continues, speaks)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (endpoint) DO UPDATE SET
    deployment = excluded.deployment, pool = excluded.pool, model = excluded.model, url = excluded.url,
    upstream_model = excluded.upstream_model, credential = excluded.credential, slots = excluded.slots,
    weight = excluded.weight, up = excluded.up, private = excluded.private,
    continues = excluded.continues, speaks = excluded.speaks;

-- list_endpoints: the places of a pool, or all when $1 is null
SELECT endpoint, deployment, pool, model, url, upstream_model, credential, slots, weight, up, private, continues,
    speaks
FROM endpoints WHERE ($1::text IS NULL OR pool = $1)
ORDER BY endpoint COLLATE "C";

-- remove_endpoints: take places away
DELETE FROM endpoints WHERE endpoint = ANY($1::text[]);

-- stage_requests: where COPY puts rows before they are merged (COPY itself can't reach a table with row security)
CREATE TEMPORARY TABLE IF NOT EXISTS staged_requests (LIKE requests) ON COMMIT DELETE ROWS;

-- stage_facts: the same for facts
CREATE TEMPORARY TABLE IF NOT EXISTS staged_facts (LIKE facts) ON COMMIT DELETE ROWS;

-- merge_requests: staged rows into the record, one per run, the first counts
INSERT INTO requests (
    run, tenant, key_id, route, model, endpoint, stream, status, outcome, code, prompt_tokens, completion_tokens,
    cached_tokens, estimated, cost_micros, events, ttft_ms, duration_ms, accepted_ms, cleared_ms, claimed_ms, first_ms,
    ended_ms, attempt, client_request_id, verdicts, attempts, finish_reason, unverified
)
SELECT
    run, tenant, key_id, route, model, endpoint, stream, status, outcome, code, prompt_tokens, completion_tokens,
    cached_tokens, estimated, cost_micros, events, ttft_ms, duration_ms, accepted_ms, cleared_ms, claimed_ms, first_ms,
    ended_ms, attempt, client_request_id, verdicts, attempts, finish_reason, unverified
FROM staged_requests ORDER BY run
ON CONFLICT (run) DO NOTHING
RETURNING run;

-- merge_facts: staged facts into the record, each once
INSERT INTO facts (run, kind, attempt, tenant, by, at_ms, detail)
SELECT run, kind, attempt, tenant, by, at_ms, detail FROM staged_facts ORDER BY run, kind, attempt
ON CONFLICT (run, kind, attempt) DO NOTHING;

-- find_request: one ended run
SELECT run, tenant, key_id, route, model, endpoint, stream, status, outcome, code, prompt_tokens, completion_tokens,
    cached_tokens, estimated, cost_micros, events, ttft_ms, duration_ms, accepted_ms, cleared_ms, claimed_ms, first_ms,
    ended_ms, attempt, client_request_id, verdicts, attempts, finish_reason, unverified
FROM requests WHERE run = $1;

-- list_facts: all facts of a run, in order
SELECT run, kind, attempt, tenant, by, at_ms, detail FROM facts WHERE run = $1 ORDER BY at_ms, attempt, kind COLLATE "C";

-- list_requests: ended runs, newest first, after the place ($8, $9) of the page before; null filters let all pass
SELECT run, tenant, key_id, route, model, endpoint, stream, status, outcome, code, prompt_tokens, completion_tokens,
    cached_tokens, estimated, cost_micros, events, ttft_ms, duration_ms, accepted_ms, cleared_ms, claimed_ms, first_ms,
    ended_ms, attempt, client_request_id, verdicts, attempts, finish_reason, unverified
FROM requests
WHERE ($1::text IS NULL OR tenant = $1)
    AND ($2::text IS NULL OR key_id = $2)
    AND ($3::text IS NULL OR model = $3)
    AND ($4::text IS NULL OR outcome = $4)
    AND ($5::integer IS NULL OR status = $5)
    AND ($6::bigint IS NULL OR ended_ms >= $6)
    AND ($7::bigint IS NULL OR ended_ms < $7)
    AND ($8::bigint IS NULL OR (ended_ms, run) < ($8, $9::text))
ORDER BY ended_ms DESC, run DESC
LIMIT $10;

-- sum_usage: tokens and cost of [$2, $3) by $4 = 'tenant', 'key' or 'model'; dearest first
SELECT (CASE $4::text WHEN 'key' THEN key_id WHEN 'model' THEN model ELSE tenant END) COLLATE "C" AS name,
    count(*) AS requests, sum(prompt_tokens) AS prompt_tokens, sum(completion_tokens) AS completion_tokens,
    sum(cached_tokens) AS cached_tokens, sum(cost_micros) AS cost_micros
FROM requests
WHERE ($1::text IS NULL OR tenant = $1) AND ended_ms >= $2 AND ended_ms < $3
GROUP BY 1
ORDER BY sum(cost_micros) DESC, 1;

-- drop_expired_once: make room for a new answer under an Idempotency-Key whose old one is not kept any more
DELETE FROM archives WHERE once = $1 AND once <> '' AND expires_ms <= $2;

-- keep_answer: an answer, once; what is there stays
INSERT INTO archives (run, tenant, key_id, once, asked, stream, frames, ended_ms, expires_ms,
    route, background, accepted_ms, body)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING
RETURNING run;

-- find_kept: the kept answer of a run
SELECT run, tenant, key_id, once, asked, stream, frames, ended_ms, expires_ms,
    route, background, accepted_ms, body
FROM archives WHERE run = $1 AND expires_ms > $2;

-- find_kept_once: the kept answer under one of the names of an Idempotency-Key
SELECT run, tenant, key_id, once, asked, stream, frames, ended_ms, expires_ms,
    route, background, accepted_ms, body
FROM archives WHERE once = ANY ($1::text[]) AND once <> '' AND expires_ms > $2 ORDER BY ended_ms LIMIT 1;

-- forget_kept: a client deletes an answer
DELETE FROM archives WHERE run = $1
RETURNING run;

-- spent_runs: which runs ended without an answer to keep: refused, cancelled, or failed before anything was billed
SELECT run FROM requests
WHERE run = ANY ($1::text[]) AND outcome <> 'completed'
    AND (outcome <> 'failed' OR prompt_tokens + completion_tokens = 0);

-- forget_expired: up to 1,000 answers that are not kept any more
DELETE FROM archives WHERE run IN (SELECT run FROM archives WHERE expires_ms <= $1 ORDER BY expires_ms LIMIT 1000)
RETURNING run;

-- look_at_server: what the server and the user of this connection are; $1 the role the service works in
SELECT current_setting('server_version_num')::int AS version, current_user AS login,
    me.rolsuper OR me.rolbypassrls AS mighty, me.rolsuper OR me.rolcreaterole AS makes_roles,
    app.rolname IS NOT NULL AS has_role, COALESCE(app.rolsuper OR app.rolbypassrls, false) AS role_mighty,
    COALESCE(pg_has_role(current_user, app.oid,
        CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END), false) AS member,
    has_schema_privilege(current_user, 'public', 'CREATE') AS makes_tables, pg_is_in_recovery() AS standby
FROM pg_roles AS me LEFT JOIN pg_roles AS app ON app.rolname = $1
WHERE me.rolname = current_user;

-- has_migrations: whether a migration ever ran here
SELECT to_regclass('schema_migrations') IS NOT NULL;

-- applied_migrations: number and checksum of those that ran
SELECT number, checksum FROM schema_migrations;

-- has_login: whether the role exists
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1);

-- has_database: whether the database exists
SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1);

-- is_member: whether role $1 may work as role $2, both there
SELECT EXISTS (
    SELECT FROM pg_auth_members AS m JOIN pg_roles AS who ON who.oid = m.member JOIN pg_roles AS app ON app.oid = m.roleid
    WHERE who.rolname = $1 AND app.rolname = $2);

-- make_login: the statement that makes the login of the service, without any right but to log in
SELECT format('CREATE ROLE %I LOGIN PASSWORD %L NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE', $1::text, $2::text);

-- make_role: the statement that makes the role in which the service works
SELECT format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE', $1::text);

-- make_member: the statement that lets role $2 work as role $1
SELECT format('GRANT %I TO %I', $1::text, $2::text);

-- make_database: the statement that makes the database, owned by the service's login
SELECT format('CREATE DATABASE %I OWNER %I', $1::text, $2::text);
