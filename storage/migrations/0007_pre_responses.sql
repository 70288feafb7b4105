-- A response is kept with what was asked, sealed, so that the next turn can be answered from it.
ALTER TABLE archives ADD COLUMN route text NOT NULL DEFAULT '';
ALTER TABLE archives ADD COLUMN background boolean NOT NULL DEFAULT false;
ALTER TABLE archives ADD COLUMN accepted_ms bigint NOT NULL DEFAULT 0;
ALTER TABLE archives ADD COLUMN body bytea NOT NULL DEFAULT '';
