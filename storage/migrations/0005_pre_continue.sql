-- How the engines of a deployment go on with an answer that broke off; '' = not at all. Code that knows nothing of it
-- writes rows without it.
ALTER TABLE deployments ADD COLUMN continues text NOT NULL DEFAULT '';
ALTER TABLE endpoints ADD COLUMN continues text NOT NULL DEFAULT '';
