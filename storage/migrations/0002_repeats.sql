-- Writes that came with an id of the caller's, so that one that comes again takes effect once.
--
-- Why a table: it has to change in the transaction of the write itself, on every node, and it is looked through by age.

CREATE TABLE repeats(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What is forgotten next.
CREATE INDEX repeats_due ON repeats(due) WHERE due IS NOT NULL;
