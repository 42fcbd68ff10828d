-- The state database as it begins.
--
-- Why this shape: a write touches one leaf of one clustered table and the last page of an append-only heap, which costs a
-- third of the usual layout (rowid tables with unique indexes) in CPU and in bytes. All tables of sealed rows are alike,
-- since storage knows nothing of what a row means: `grp` and `due` are indexed only where something looks for them.

-- Which migrations made this database; `checksum` is the SHA-256 of the migration's text.
CREATE TABLE migrations(
  number   INTEGER PRIMARY KEY,
  name     TEXT NOT NULL,
  checksum BLOB NOT NULL CHECK (length(checksum) = 32)
) STRICT;

-- The one row that every transaction of `apply` rewrites: how far the log is applied, what all sealed rows add up to,
-- the leader's signature over that sum, and the highest version number ever used. `idx` is NULL before the first entry.
-- 64-bit numbers without sign stand as the signed number with the same bits.
CREATE TABLE applied(
  one          INTEGER PRIMARY KEY CHECK (one = 1),
  term         INTEGER NOT NULL,
  leader       INTEGER NOT NULL,
  idx          INTEGER,
  sum          BLOB NOT NULL CHECK (length(sum) = 32),
  signature    BLOB NOT NULL CHECK (length(signature) = 32),
  last_version INTEGER NOT NULL CHECK (last_version >= 0)
) STRICT;
INSERT INTO applied VALUES (1, 0, 0, NULL, zeroblob(32), zeroblob(32), 0);

-- The last membership entry of the log and where it stood; empty before the first one.
CREATE TABLE membership(
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  term    INTEGER NOT NULL,
  leader  INTEGER NOT NULL,
  idx     INTEGER NOT NULL,
  members BLOB NOT NULL
) STRICT;

-- The sealed parts of every secret version: only ever appended to, re-wrapped or erased.
CREATE TABLE versions(
  id      INTEGER PRIMARY KEY CHECK (id > 0),
  wrapped BLOB NOT NULL,
  payload BLOB NOT NULL
) STRICT;

CREATE TABLE config(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE mounts(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE policies(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE accessors(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE secrets(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE folders(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE entries(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE wrapped(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE secret_ids(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The children of a token, for revocation.
CREATE INDEX tokens_grp ON tokens(grp);

-- What expires next.
CREATE INDEX tokens_due ON tokens(due) WHERE due IS NOT NULL;
CREATE INDEX wrapped_due ON wrapped(due) WHERE due IS NOT NULL;
