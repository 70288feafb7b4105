-- The APIs that a deployment's engines speak beside those every one does. Code that knows nothing of it writes rows
-- without it.
ALTER TABLE deployments ADD COLUMN speaks text[] NOT NULL DEFAULT '{chat}';
ALTER TABLE endpoints ADD COLUMN speaks text[] NOT NULL DEFAULT '{chat}';
