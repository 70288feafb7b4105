--
-- PostgreSQL database dump
--

\restrict LeLWpvs28llaSbgqlmefsfJcxhnzEIJcWbga8djPmPrJuW2ibNIldayEd2fFWDt

-- Dumped from database version 18.6
-- Dumped by pg_dump version 18.6

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: commands; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.commands (
    command_id text NOT NULL,
    kind text NOT NULL,
    deployment text NOT NULL,
    begun_ms bigint NOT NULL,
    done_ms bigint DEFAULT 0 NOT NULL
);


--
-- Name: deployments; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.deployments (
    deployment text NOT NULL,
    command_id text NOT NULL,
    name text NOT NULL,
    target text NOT NULL,
    pool text NOT NULL,
    state text NOT NULL,
    reason text NOT NULL,
    url text NOT NULL,
    upstream_model text NOT NULL,
    credential text NOT NULL,
    slots integer NOT NULL,
    weight integer NOT NULL,
    private boolean NOT NULL,
    command text[] NOT NULL,
    pid integer NOT NULL,
    created_ms bigint NOT NULL,
    updated_ms bigint NOT NULL
);


--
-- Name: endpoints; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.endpoints (
    endpoint text NOT NULL,
    deployment text NOT NULL,
    pool text NOT NULL,
    model text NOT NULL,
    url text NOT NULL,
    upstream_model text NOT NULL,
    credential text NOT NULL,
    slots integer NOT NULL,
    weight integer NOT NULL,
    up boolean NOT NULL,
    private boolean NOT NULL
);


--
-- Name: facts; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.facts (
    run text NOT NULL,
    kind text NOT NULL,
    attempt integer NOT NULL,
    tenant text NOT NULL,
    by text NOT NULL,
    at_ms bigint NOT NULL,
    detail jsonb NOT NULL
);

ALTER TABLE ONLY public.facts FORCE ROW LEVEL SECURITY;


--
-- Name: keys; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.keys (
    key_id text NOT NULL,
    tenant text NOT NULL,
    name text NOT NULL,
    secret_mac text NOT NULL,
    mac_kid text NOT NULL,
    scopes text[] NOT NULL,
    models text[] NOT NULL,
    requests_per_minute integer NOT NULL,
    concurrency integer NOT NULL,
    weight integer NOT NULL,
    lane text NOT NULL,
    on_disconnect text NOT NULL,
    created_ms bigint NOT NULL,
    expires_ms bigint NOT NULL,
    revoked_ms bigint NOT NULL,
    previous_mac text NOT NULL,
    previous_mac_kid text NOT NULL,
    previous_until_ms bigint NOT NULL
);

ALTER TABLE ONLY public.keys FORCE ROW LEVEL SECURITY;


--
-- Name: models; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.models (
    name text NOT NULL,
    pool text NOT NULL,
    created bigint NOT NULL,
    owned_by text NOT NULL
);


--
-- Name: requests; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.requests (
    run text NOT NULL,
    tenant text NOT NULL,
    key_id text NOT NULL,
    route text NOT NULL,
    model text NOT NULL,
    endpoint text NOT NULL,
    stream boolean NOT NULL,
    status integer NOT NULL,
    outcome text NOT NULL,
    code text NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    estimated boolean NOT NULL,
    cost_micros bigint NOT NULL,
    events bigint NOT NULL,
    ttft_ms bigint NOT NULL,
    duration_ms bigint NOT NULL,
    accepted_ms bigint NOT NULL,
    cleared_ms bigint NOT NULL,
    claimed_ms bigint NOT NULL,
    first_ms bigint NOT NULL,
    ended_ms bigint NOT NULL,
    attempt integer NOT NULL,
    client_request_id text NOT NULL,
    verdicts jsonb NOT NULL,
    attempts jsonb NOT NULL,
    finish_reason text NOT NULL,
    unverified text[] NOT NULL
);

ALTER TABLE ONLY public.requests FORCE ROW LEVEL SECURITY;


--
-- Name: schema_migrations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.schema_migrations (
    number integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);


--
-- Name: tenants; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.tenants (
    tenant text NOT NULL,
    created_ms bigint NOT NULL,
    CONSTRAINT tenants_tenant_check CHECK ((tenant <> ''::text))
);

ALTER TABLE ONLY public.tenants FORCE ROW LEVEL SECURITY;


--
-- Data for Name: commands; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.commands (command_id, kind, deployment, begun_ms, done_ms) FROM stdin;
4b4a85f3cbc1b72b6001973c86a1c8bf	DeployModel	old-model	1795729851824	1795729851824
\.


--
-- Data for Name: deployments; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.deployments (deployment, command_id, name, target, pool, state, reason, url, upstream_model, credential, slots, weight, private, command, pid, created_ms, updated_ms) FROM stdin;
old-model	4b4a85f3cbc1b72b6001973c86a1c8bf	old/model	external	old/model	ready		http://127.77.0.1:18473/v1		AQJrMTZM9+b1XFj+oegzbEDlFHmAYpuTQTl7/91ZmenViv6LE1lAnr4ljcLlHdvpRQ==	4	1	t	{}	0	1795729851830	1795729851839
\.


--
-- Data for Name: endpoints; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.endpoints (endpoint, deployment, pool, model, url, upstream_model, credential, slots, weight, up, private) FROM stdin;
\.


--
-- Data for Name: facts; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.facts (run, kind, attempt, tenant, by, at_ms, detail) FROM stdin;
01a219d7-05eb-7000-bb98-66cc2ae3ed21	RequestCompleted	1	default	router	1795729852093	{"code": "", "events": 4, "status": 200, "outcome": "completed"}
01a219d7-06bf-7000-a734-92c9329263bd	RequestFailed	1	default	router	1795729852099	{"code": "invalid_request", "events": 1, "status": 400, "outcome": "failed"}
01a219d7-06c5-7000-a3fe-3653ca3aac8a	RequestRefused	0	default	rules	1795729852103	{"code": "content_policy_violation", "events": 0, "status": 400, "outcome": "refused"}
\.


--
-- Data for Name: keys; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.keys (key_id, tenant, name, secret_mac, mac_kid, scopes, models, requests_per_minute, concurrency, weight, lane, on_disconnect, created_ms, expires_ms, revoked_ms, previous_mac, previous_mac_kid, previous_until_ms) FROM stdin;
01111fe1f286c068	default	first application key	8df08e65263d5abd780b9c3d371fad26bd58e65d9da24368911c46367f9a3d4f	k1	{inference}	{*}	0	0	1	interactive		1795729851697	0	0			0
ceb44c1274e66ab8	default	first admin key	8c0277d8856a9acb1f1b08ac737171a2322aa6e2954ed1de8a2dfd11ba88fab4	k1	{admin}	{*}	0	0	1	interactive		1795729851701	0	0			0
cc51bb048929ed5d	default	made by a test	a035fd587e9f1743d14870e7b3f9dc245b4002ad2ca6a598bd56cf5a88e56ce1	k1	{inference}	{old/*}	100	5	1	interactive		1795729851801	0	0			0
edca1084558848da	default	made by a test	3096ae09af60a53f553c140af3eebdf2e66063d4a67b33aa933918b745066c0d	k1	{inference}	{*}	0	0	1	interactive		1795729851808	0	1795729851813			0
\.


--
-- Data for Name: models; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.models (name, pool, created, owned_by) FROM stdin;
\.


--
-- Data for Name: requests; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.requests (run, tenant, key_id, route, model, endpoint, stream, status, outcome, code, prompt_tokens, completion_tokens, cached_tokens, estimated, cost_micros, events, ttft_ms, duration_ms, accepted_ms, cleared_ms, claimed_ms, first_ms, ended_ms, attempt, client_request_id, verdicts, attempts, finish_reason, unverified) FROM stdin;
01a219d7-05eb-7000-bb98-66cc2ae3ed21	default	cc51bb048929ed5d	/v1/chat/completions	old/model	old-model	t	200	completed		7	3	0	f	0	4	165	207	1795729851886	1795729851890	1795729852038	1795729852051	1795729852093	1		[{"lane": "interactive", "pool": "old/model", "edits": {}, "found": {}, "family": "authorization", "policy": "a190fcfd9d992e2d", "outcome": "pass", "took_us": 3455}, {"edits": {}, "found": {}, "family": "persons", "policy": "f906e9b0d3e7", "outcome": "skip", "took_us": 0}, {"edits": {}, "found": {}, "family": "rules", "policy": "f906e9b0d3e7", "outcome": "pass", "took_us": 178}]	[{"status": 200, "outcome": "ok", "ended_ms": 54, "endpoint": "old-model", "started_ms": 0}]	stop	{}
01a219d7-06bf-7000-a734-92c9329263bd	default	01111fe1f286c068	/v1/chat/completions	old/model	old-model	f	400	failed	invalid_request	0	0	0	f	0	1	0	3	1795729852096	1795729852097	1795729852097	0	1795729852099	1		[{"lane": "interactive", "pool": "old/model", "edits": {}, "found": {}, "family": "authorization", "policy": "a190fcfd9d992e2d", "outcome": "pass", "took_us": 814}, {"edits": {}, "found": {}, "family": "persons", "policy": "f906e9b0d3e7", "outcome": "skip", "took_us": 0}, {"edits": {}, "found": {}, "family": "rules", "policy": "f906e9b0d3e7", "outcome": "pass", "took_us": 163}]	[{"status": 400, "outcome": "invalid_request", "ended_ms": 1, "endpoint": "old-model", "started_ms": 0}]		{}
01a219d7-06c5-7000-a3fe-3653ca3aac8a	default	01111fe1f286c068	/v1/chat/completions	old/model		t	400	refused	content_policy_violation	0	0	0	f	0	0	0	1	1795729852102	0	0	0	1795729852103	0		[{"lane": "interactive", "pool": "old/model", "edits": {}, "found": {}, "family": "authorization", "policy": "a190fcfd9d992e2d", "outcome": "pass", "took_us": 71}, {"edits": {}, "found": {}, "family": "persons", "policy": "f906e9b0d3e7", "outcome": "skip", "took_us": 0}, {"code": "content_policy_violation", "edits": {}, "found": {"card": 1}, "family": "rules", "policy": "f906e9b0d3e7", "outcome": "refuse", "took_us": 221}]	[]		{}
\.


--
-- Data for Name: schema_migrations; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.schema_migrations (number, name, checksum, applied_at) FROM stdin;
1	0001_pre_first_shape.sql	e31c1347454e6223ed454919e82f1e7506f879da52dad21e4764c4f48b0fde62	2026-11-26 21:50:50.837685+00
\.


--
-- Data for Name: tenants; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.tenants (tenant, created_ms) FROM stdin;
default	1795729851697
\.


--
-- Name: commands commands_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.commands
    ADD CONSTRAINT commands_pkey PRIMARY KEY (command_id);


--
-- Name: deployments deployments_command_id_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.deployments
    ADD CONSTRAINT deployments_command_id_key UNIQUE (command_id);


--
-- Name: deployments deployments_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.deployments
    ADD CONSTRAINT deployments_pkey PRIMARY KEY (deployment);


--
-- Name: endpoints endpoints_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.endpoints
    ADD CONSTRAINT endpoints_pkey PRIMARY KEY (endpoint);


--
-- Name: facts facts_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.facts
    ADD CONSTRAINT facts_pkey PRIMARY KEY (run, kind, attempt);


--
-- Name: keys keys_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.keys
    ADD CONSTRAINT keys_pkey PRIMARY KEY (key_id);


--
-- Name: models models_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.models
    ADD CONSTRAINT models_pkey PRIMARY KEY (name);


--
-- Name: requests requests_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.requests
    ADD CONSTRAINT requests_pkey PRIMARY KEY (run);


--
-- Name: schema_migrations schema_migrations_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (number);


--
-- Name: tenants tenants_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_pkey PRIMARY KEY (tenant);


--
-- Name: endpoints_pool; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX endpoints_pool ON public.endpoints USING btree (pool, endpoint);


--
-- Name: keys_tenant; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX keys_tenant ON public.keys USING btree (tenant, created_ms, key_id);


--
-- Name: requests_ended; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX requests_ended ON public.requests USING btree (ended_ms DESC, run DESC);


--
-- Name: requests_key; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX requests_key ON public.requests USING btree (key_id, ended_ms DESC, run DESC);


--
-- Name: requests_tenant; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX requests_tenant ON public.requests USING btree (tenant, ended_ms DESC, run DESC);


--
-- Name: keys keys_tenant_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.keys
    ADD CONSTRAINT keys_tenant_fkey FOREIGN KEY (tenant) REFERENCES public.tenants(tenant);


--
-- Name: facts; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.facts ENABLE ROW LEVEL SECURITY;

--
-- Name: keys; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.keys ENABLE ROW LEVEL SECURITY;

--
-- Name: facts of_operator; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY of_operator ON public.facts USING (( SELECT (current_setting('app.scope'::text, true) = 'operator'::text)));


--
-- Name: keys of_operator; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY of_operator ON public.keys USING (( SELECT (current_setting('app.scope'::text, true) = 'operator'::text)));


--
-- Name: requests of_operator; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY of_operator ON public.requests USING (( SELECT (current_setting('app.scope'::text, true) = 'operator'::text)));


--
-- Name: tenants of_operator; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY of_operator ON public.tenants USING (( SELECT (current_setting('app.scope'::text, true) = 'operator'::text)));


--
-- Name: facts of_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY of_tenant ON public.facts USING ((tenant = ( SELECT NULLIF(current_setting('app.tenant'::text, true), ''::text) AS "nullif")));


--
-- Name: keys of_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY of_tenant ON public.keys USING ((tenant = ( SELECT NULLIF(current_setting('app.tenant'::text, true), ''::text) AS "nullif")));


--
-- Name: requests of_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY of_tenant ON public.requests USING ((tenant = ( SELECT NULLIF(current_setting('app.tenant'::text, true), ''::text) AS "nullif")));


--
-- Name: tenants of_tenant; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY of_tenant ON public.tenants USING ((tenant = ( SELECT NULLIF(current_setting('app.tenant'::text, true), ''::text) AS "nullif")));


--
-- Name: requests; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.requests ENABLE ROW LEVEL SECURITY;

--
-- Name: tenants; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.tenants ENABLE ROW LEVEL SECURITY;

--
-- Name: SCHEMA public; Type: ACL; Schema: -; Owner: -
--

GRANT USAGE ON SCHEMA public TO headrace_app;


--
-- Name: TABLE commands; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.commands TO headrace_app;


--
-- Name: TABLE deployments; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.deployments TO headrace_app;


--
-- Name: TABLE endpoints; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.endpoints TO headrace_app;


--
-- Name: TABLE facts; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT ON TABLE public.facts TO headrace_app;


--
-- Name: TABLE keys; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.keys TO headrace_app;


--
-- Name: TABLE models; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.models TO headrace_app;


--
-- Name: TABLE requests; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT ON TABLE public.requests TO headrace_app;


--
-- Name: TABLE tenants; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT ON TABLE public.tenants TO headrace_app;


--
-- PostgreSQL database dump complete
--

\unrestrict LeLWpvs28llaSbgqlmefsfJcxhnzEIJcWbga8djPmPrJuW2ibNIldayEd2fFWDt

