-- The newest moment that an applied command was stamped with, in nanoseconds of Unix time; 0 before the first.
--
-- Why: whoever leads next stamps nothing older, also if it has applied nothing since its own start, or got its state as a
-- snapshot. In the row that every transaction rewrites anyway. Not among the rows that are summed up: every node works it
-- out of the log.
ALTER TABLE applied ADD COLUMN newest INTEGER NOT NULL DEFAULT 0;
