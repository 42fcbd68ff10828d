-- The sum of all migrations, as SQLite keeps it.

CREATE TABLE accessors(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE applied(
  one          INTEGER PRIMARY KEY CHECK (one = 1),
  term         INTEGER NOT NULL,
  leader       INTEGER NOT NULL,
  idx          INTEGER,
  sum          BLOB NOT NULL CHECK (length(sum) = 32),
  signature    BLOB NOT NULL CHECK (length(signature) = 32),
  last_version INTEGER NOT NULL CHECK (last_version >= 0)
, newest INTEGER NOT NULL DEFAULT 0) STRICT;

CREATE TABLE config(
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

CREATE TABLE folders(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE membership(
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  term    INTEGER NOT NULL,
  leader  INTEGER NOT NULL,
  idx     INTEGER NOT NULL,
  members BLOB NOT NULL
) STRICT;

CREATE TABLE migrations(
  number   INTEGER PRIMARY KEY,
  name     TEXT NOT NULL,
  checksum BLOB NOT NULL CHECK (length(checksum) = 32)
) STRICT;

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

CREATE TABLE repeats(
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

CREATE TABLE secrets(
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

CREATE TABLE versions(
  id      INTEGER PRIMARY KEY CHECK (id > 0),
  wrapped BLOB NOT NULL,
  payload BLOB NOT NULL
) STRICT;

CREATE TABLE wrapped(
  key  BLOB NOT NULL PRIMARY KEY,
  rev  INTEGER NOT NULL CHECK (rev > 0),
  grp  BLOB NOT NULL,
  due  INTEGER,
  head INTEGER,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX repeats_due ON repeats(due) WHERE due IS NOT NULL;

CREATE INDEX tokens_due ON tokens(due) WHERE due IS NOT NULL;

CREATE INDEX tokens_grp ON tokens(grp);

CREATE INDEX wrapped_due ON wrapped(due) WHERE due IS NOT NULL;
