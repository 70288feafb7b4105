-- What happens to runs of a model when their last client leaves; '' = as the server says. Code that knows nothing of it
-- writes rows that say nothing.
ALTER TABLE deployments ADD COLUMN on_disconnect text NOT NULL DEFAULT '';
ALTER TABLE models ADD COLUMN on_disconnect text NOT NULL DEFAULT '';
