-- What pbus keeps beside PGMQ's own tables. Every name is unique within its channel. All of it may
-- be there already: what is missing is made again.
CREATE TABLE IF NOT EXISTS pbus.meta (stamp text NOT NULL);

-- Give what format 1 named otherwise its new name, with its rows. Its functions are made again under
-- their new names; so are tables that are not logged and whose rows processes write again.
DO $$
DECLARE x record;
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_proc
              WHERE pronamespace = 'pbus'::regnamespace AND proname = 'mail_open') THEN
    DROP TABLE IF EXISTS pbus.waiter, pbus.wire, pbus.touched;
    FOR x IN SELECT oid::regprocedure AS it FROM pg_catalog.pg_proc
              WHERE pronamespace = 'pbus'::regnamespace AND prokind = 'f'
    LOOP
      EXECUTE format('DROP FUNCTION %s', x.it);
    END LOOP;
  END IF;
  FOR x IN SELECT * FROM (VALUES
      ('mailbox', 'queue'), ('intake', 'enqueued_count'), ('outgo', 'dequeued_count'),
      ('stream', 'sender_stream'), ('holder', 'consumer'), ('held', 'in_flight'),
      ('dead', 'dead_letter')) v(old, new)
    WHERE to_regclass('pbus.' || v.old) IS NOT NULL AND to_regclass('pbus.' || v.new) IS NULL
  LOOP
    EXECUTE format('ALTER TABLE pbus.%I RENAME TO %I', x.old, x.new);
  END LOOP;
  FOR x IN SELECT v.*, a.attname FROM (VALUES
      ('queue', 'queue', 'base'), ('queue', 'is_kept', 'is_durable'),
      ('enqueued_count', 'mailbox', 'queue_id'), ('dequeued_count', 'mailbox', 'queue_id'),
      ('in_flight', 'mailbox', 'queue_id'), ('in_flight', 'holder', 'consumer'),
      ('handled', 'mailbox', 'queue_id'), ('dead_letter', 'mailbox', 'queue_id'),
      ('dead_letter', 'letter', 'message'), ('dead_letter', 'buried_at', 'dead_since')) v(its, old, new)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = to_regclass('pbus.' || v.its) AND a.attname = v.old
  LOOP
    EXECUTE format('ALTER TABLE pbus.%I RENAME COLUMN %I TO %I', x.its, x.old, x.new);
  END LOOP;
  ALTER INDEX IF EXISTS pbus.held_holder RENAME TO in_flight_consumer;
  ALTER INDEX IF EXISTS pbus.dead_mailbox RENAME TO dead_letter_queue;
END $$;

-- Leases are put back by their holders after a crash of the server, so they need no log.
CREATE UNLOGGED TABLE IF NOT EXISTS pbus.membership (channel text PRIMARY KEY, version bigint NOT NULL);
-- The changes up to version `noted` have a row each name; up to `floor` they are forgotten.
ALTER TABLE pbus.membership ADD COLUMN IF NOT EXISTS noted bigint NOT NULL DEFAULT -1,
  ADD COLUMN IF NOT EXISTS floor bigint NOT NULL DEFAULT -1;
CREATE UNLOGGED TABLE IF NOT EXISTS pbus.lease_change (
  channel text NOT NULL, name text NOT NULL, version bigint NOT NULL, PRIMARY KEY (channel, name)
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS lease_change_version ON pbus.lease_change (channel, version);
CREATE UNLOGGED TABLE IF NOT EXISTS pbus.lease (
  channel text NOT NULL, name text NOT NULL, incarnation text NOT NULL,
  head text NOT NULL, body text NOT NULL, ends_at timestamptz NOT NULL,
  PRIMARY KEY (channel, name)
) WITH (fillfactor = 50);
CREATE UNLOGGED TABLE IF NOT EXISTS pbus.record (
  channel text NOT NULL, key text NOT NULL, body bytea NOT NULL, ends_at timestamptz NOT NULL,
  PRIMARY KEY (channel, key)
);
CREATE UNLOGGED TABLE IF NOT EXISTS pbus.stats (
  channel text NOT NULL, key text NOT NULL, body bytea NOT NULL, ends_at timestamptz NOT NULL,
  PRIMARY KEY (channel, key)
);
CREATE TABLE IF NOT EXISTS pbus.activation (
  channel text NOT NULL, name text NOT NULL, body text NOT NULL, PRIMARY KEY (channel, name)
);

-- A queue of pbus has two PGMQ queues, one a lane: `base` with _d and with _s.
CREATE TABLE IF NOT EXISTS pbus.queue (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- from the name, see queue_open
  channel text NOT NULL, name text NOT NULL, base text NOT NULL,
  is_durable boolean NOT NULL, is_shared boolean NOT NULL, max_backlog bigint NOT NULL,
  max_bytes bigint NOT NULL DEFAULT 268435456, ends_at timestamptz NOT NULL,
  UNIQUE (channel, name)
);
-- The backlog is the difference of two counters, of messages and of bytes (of whole entries): writers
-- and readers do not wait for each other.
-- One row counts a queue; after some updates another of the next generation takes its place, so
-- that the newest is found first, and soon, however many versions an old snapshot keeps.
CREATE TABLE IF NOT EXISTS pbus.enqueued_count (
  queue_id bigint NOT NULL, generation bigint NOT NULL DEFAULT 0, updates integer NOT NULL DEFAULT 0,
  stored bigint NOT NULL, bytes bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (queue_id, generation)) WITH (fillfactor = 20);
CREATE TABLE IF NOT EXISTS pbus.dequeued_count (
  queue_id bigint NOT NULL, generation bigint NOT NULL DEFAULT 0, updates integer NOT NULL DEFAULT 0,
  gone bigint NOT NULL, bytes bigint NOT NULL DEFAULT 0, fell bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (queue_id, generation)) WITH (fillfactor = 20);
-- Locked before a count is read to be changed; never updated. A writer to a queue locks its `in`, so
-- rows become visible in their order.
CREATE TABLE IF NOT EXISTS pbus.queue_lock (
  queue_id bigint NOT NULL, side text NOT NULL, PRIMARY KEY (queue_id, side));

-- The last number stored of each sender's stream: what is written again is ignored.
CREATE TABLE IF NOT EXISTS pbus.sender_stream (
  channel text NOT NULL, sender text NOT NULL, stream bigint NOT NULL, address text NOT NULL,
  lane text NOT NULL, last bigint NOT NULL, used_at timestamptz NOT NULL,
  generation bigint NOT NULL DEFAULT 0, updates integer NOT NULL DEFAULT 0,
  PRIMARY KEY (channel, sender, stream, address, lane, generation)
) WITH (fillfactor = 50);

-- PGMQ does not say who holds a row.
CREATE TABLE IF NOT EXISTS pbus.consumer (
  channel text NOT NULL, name text NOT NULL, ends_at timestamptz NOT NULL, is_dead boolean NOT NULL,
  PRIMARY KEY (channel, name)
);
CREATE TABLE IF NOT EXISTS pbus.in_flight (
  -- Drawn: after a crash a sequence may give a number again that some process still settles.
  hold bigint DEFAULT (random() * 9007199254740991)::bigint PRIMARY KEY,
  queue_id bigint NOT NULL, lane text NOT NULL, msg_id bigint NOT NULL,
  channel text NOT NULL, consumer text NOT NULL, held_at timestamptz NOT NULL,
  size integer NOT NULL, gone integer[] NOT NULL, started integer[] NOT NULL,
  bytes bigint NOT NULL DEFAULT 0, seq bigint GENERATED ALWAYS AS IDENTITY
);

CREATE TABLE IF NOT EXISTS pbus.handled (
  queue_id bigint NOT NULL, id text NOT NULL, at timestamptz NOT NULL, PRIMARY KEY (queue_id, id)
);
-- By mailbox in disguise: else it would be taken for an id of a mailbox that statistics do not know.
CREATE INDEX IF NOT EXISTS handled_at ON pbus.handled ((queue_id + 0), at);
CREATE TABLE IF NOT EXISTS pbus.dead_letter (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  queue_id bigint NOT NULL, lane text NOT NULL, message jsonb NOT NULL, reason text NOT NULL,
  attempt integer NOT NULL, crashes integer NOT NULL, dead_since timestamptz NOT NULL,
  bytes bigint NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS dead_letter_queue ON pbus.dead_letter (queue_id);

-- Columns that tables of earlier versions lack.
DO $$
DECLARE x record;
BEGIN
  FOR x IN SELECT * FROM (VALUES ('queue', 'max_bytes', 268435456), ('enqueued_count', 'bytes', 0),
                                 ('dequeued_count', 'bytes', 0), ('in_flight', 'bytes', 0),
                                 ('dequeued_count', 'fell', 0), ('dead_letter', 'bytes', 0)) v(its, part, usual)
            WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                               WHERE a.attrelid = ('pbus.' || v.its)::regclass AND a.attname = v.part)
  LOOP
    EXECUTE format('ALTER TABLE pbus.%I ADD COLUMN %I bigint NOT NULL DEFAULT %s', x.its, x.part, x.usual);
  END LOOP;
  FOR x IN SELECT v.*, (SELECT conname FROM pg_catalog.pg_constraint
                         WHERE conrelid = ('pbus.' || v.its)::regclass AND contype = 'p') AS key
             FROM (VALUES ('enqueued_count', 'queue_id'), ('dequeued_count', 'queue_id'),
                          ('sender_stream', 'channel, sender, stream, address, lane')) v(its, columns)
            WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                               WHERE a.attrelid = ('pbus.' || v.its)::regclass AND a.attname = 'generation')
  LOOP
    EXECUTE format('ALTER TABLE pbus.%1$I ADD COLUMN generation bigint NOT NULL DEFAULT 0,
      ADD COLUMN updates integer NOT NULL DEFAULT 0, DROP CONSTRAINT %2$I, ADD PRIMARY KEY (%3$s, generation)',
      x.its, x.key, x.columns);
  END LOOP;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                  WHERE attrelid = 'pbus.in_flight'::regclass AND attname = 'seq') THEN
    DROP INDEX IF EXISTS pbus.in_flight_consumer;
    ALTER TABLE pbus.in_flight ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY;
  END IF;
  INSERT INTO pbus.queue_lock SELECT id, side FROM pbus.queue, (VALUES ('in'), ('out')) v(side)
    ON CONFLICT DO NOTHING;
  DROP FUNCTION IF EXISTS pbus.queue_renew(text, text[], text[], float8, float8);
END $$;
-- None by mailbox: it would be taken instead of the primary key, and leads past all that is gone.
CREATE INDEX IF NOT EXISTS in_flight_consumer ON pbus.in_flight (channel, consumer, seq);
