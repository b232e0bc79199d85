-- What pbus keeps beside PGMQ's own tables. Every name is unique within its channel. All of it may
-- be there already: what is missing is made again.
CREATE TABLE IF NOT EXISTS pbus.meta (stamp text NOT NULL);

-- Leases are put back by their holders after a crash of the server, so they need no log.
CREATE UNLOGGED TABLE IF NOT EXISTS pbus.membership (channel text PRIMARY KEY, version bigint NOT NULL);
CREATE UNLOGGED TABLE IF NOT EXISTS pbus.lease (
  channel text NOT NULL, name text NOT NULL, incarnation text NOT NULL,
  head text NOT NULL, body text NOT NULL, ends_at timestamptz NOT NULL,
  PRIMARY KEY (channel, name)
) WITH (fillfactor = 50);
CREATE UNLOGGED TABLE IF NOT EXISTS pbus.record (
  channel text NOT NULL, key text NOT NULL, body bytea NOT NULL, ends_at timestamptz NOT NULL,
  PRIMARY KEY (channel, key)
);
CREATE TABLE IF NOT EXISTS pbus.activation (
  channel text NOT NULL, name text NOT NULL, body text NOT NULL, PRIMARY KEY (channel, name)
);

-- A mailbox has two PGMQ queues: its `queue` with _d and with _s.
CREATE TABLE IF NOT EXISTS pbus.mailbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- from the name, see mail_open
  channel text NOT NULL, name text NOT NULL, queue text NOT NULL,
  is_kept boolean NOT NULL, is_shared boolean NOT NULL, max_backlog bigint NOT NULL,
  max_bytes bigint NOT NULL DEFAULT 268435456, ends_at timestamptz NOT NULL,
  UNIQUE (channel, name)
);
-- The backlog is the difference of two counters, of messages and of bytes (of whole entries): writers
-- and readers do not wait for each other.
-- Who writes into a mailbox locks its intake row, so rows become visible in their order.
CREATE TABLE IF NOT EXISTS pbus.intake (
  mailbox bigint PRIMARY KEY, stored bigint NOT NULL, bytes bigint NOT NULL DEFAULT 0) WITH (fillfactor = 20);
CREATE TABLE IF NOT EXISTS pbus.outgo (
  mailbox bigint PRIMARY KEY, gone bigint NOT NULL, bytes bigint NOT NULL DEFAULT 0,
  fell bigint NOT NULL DEFAULT 0) WITH (fillfactor = 20);

-- The last number stored of each sender's stream: what is written again is ignored.
CREATE TABLE IF NOT EXISTS pbus.stream (
  channel text NOT NULL, sender text NOT NULL, stream bigint NOT NULL, address text NOT NULL,
  lane text NOT NULL, last bigint NOT NULL, used_at timestamptz NOT NULL,
  PRIMARY KEY (channel, sender, stream, address, lane)
) WITH (fillfactor = 50);

-- PGMQ does not say who holds a row.
CREATE TABLE IF NOT EXISTS pbus.holder (
  channel text NOT NULL, name text NOT NULL, ends_at timestamptz NOT NULL, is_dead boolean NOT NULL,
  PRIMARY KEY (channel, name)
);
CREATE TABLE IF NOT EXISTS pbus.held (
  -- Drawn: after a crash a sequence may give a number again that some process still settles.
  hold bigint DEFAULT (random() * 9007199254740991)::bigint PRIMARY KEY,
  mailbox bigint NOT NULL, lane text NOT NULL, msg_id bigint NOT NULL,
  channel text NOT NULL, holder text NOT NULL, held_at timestamptz NOT NULL,
  size integer NOT NULL, gone integer[] NOT NULL, started integer[] NOT NULL,
  bytes bigint NOT NULL DEFAULT 0
);
-- None by mailbox: it would be taken instead of the primary key, and leads past all that is gone.
CREATE INDEX IF NOT EXISTS held_holder ON pbus.held (channel, holder);

CREATE TABLE IF NOT EXISTS pbus.handled (
  mailbox bigint NOT NULL, id text NOT NULL, at timestamptz NOT NULL, PRIMARY KEY (mailbox, id)
);
-- By mailbox in disguise: else it would be taken for an id of a mailbox that statistics do not know.
CREATE INDEX IF NOT EXISTS handled_at ON pbus.handled ((mailbox + 0), at);
CREATE TABLE IF NOT EXISTS pbus.dead (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  mailbox bigint NOT NULL, lane text NOT NULL, letter jsonb NOT NULL, reason text NOT NULL,
  attempt integer NOT NULL, crashes integer NOT NULL, buried_at timestamptz NOT NULL,
  bytes bigint NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS dead_mailbox ON pbus.dead (mailbox);

-- What tables of earlier versions lack. Functions whose results changed cannot be replaced.
DO $$
DECLARE x record;
BEGIN
  FOR x IN SELECT * FROM (VALUES ('mailbox', 'max_bytes', 268435456), ('intake', 'bytes', 0),
                                 ('outgo', 'bytes', 0), ('held', 'bytes', 0), ('outgo', 'fell', 0),
                                 ('dead', 'bytes', 0)) v(its, part, usual)
            WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                               WHERE a.attrelid = ('pbus.' || v.its)::regclass AND a.attname = v.part)
  LOOP
    EXECUTE format('ALTER TABLE pbus.%I ADD COLUMN %I bigint NOT NULL DEFAULT %s', x.its, x.part, x.usual);
  END LOOP;
END $$;
DROP FUNCTION IF EXISTS pbus.mail_finish(bigint[]), pbus.mail_reports(text),
  pbus.mail_tidy(text, float8, bigint, bigint),
  pbus.mail_settle(text, bigint[], int[], bigint[], text[], text[], float8[], text[]),
  pbus.mail_open(text, text, boolean, boolean, bigint, float8),
  pbus.mail_put(text, text[], bigint[], text[], text[], int[], bigint[], int[], text[]),
  pbus.mail_put_one(text, text, bigint, text, text, bigint, int, text);
