-- Answers that are kept: sealed frames, as they lay in Redis, for as long as a client may ask for them again. The first
-- under an Idempotency-Key counts.
CREATE TABLE archives (
    run        text PRIMARY KEY,
    tenant     text NOT NULL,
    key_id     text NOT NULL,
    once       text NOT NULL,
    asked      text NOT NULL,
    stream     boolean NOT NULL,
    frames     bytea NOT NULL,
    ended_ms   bigint NOT NULL,
    expires_ms bigint NOT NULL
);
CREATE UNIQUE INDEX archives_once ON archives (once) WHERE once <> '';
CREATE INDEX archives_expires ON archives (expires_ms);
ALTER TABLE archives ENABLE ROW LEVEL SECURITY;
ALTER TABLE archives FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON archives USING (tenant = (SELECT NULLIF(current_setting('app.tenant', true), '')));
CREATE POLICY of_operator ON archives USING ((SELECT current_setting('app.scope', true) = 'operator'));
GRANT SELECT, INSERT, DELETE ON archives TO headrace_app;
