-- What format 1 made in a database, as far as the next one has to find and rename it: all tables, and of
-- the functions one of each kind.
CREATE SCHEMA pbus;
CREATE TABLE pbus.meta (stamp text NOT NULL);
CREATE UNLOGGED TABLE pbus.membership (channel text PRIMARY KEY, version bigint NOT NULL);
CREATE UNLOGGED TABLE pbus.lease (
  channel text NOT NULL, name text NOT NULL, incarnation text NOT NULL,
  head text NOT NULL, body text NOT NULL, ends_at timestamptz NOT NULL,
  PRIMARY KEY (channel, name)
) WITH (fillfactor = 50);
CREATE UNLOGGED TABLE pbus.record (
  channel text NOT NULL, key text NOT NULL, body bytea NOT NULL, ends_at timestamptz NOT NULL,
  PRIMARY KEY (channel, key)
);
CREATE TABLE pbus.activation (
  channel text NOT NULL, name text NOT NULL, body text NOT NULL, PRIMARY KEY (channel, name)
);
CREATE TABLE pbus.mailbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  channel text NOT NULL, name text NOT NULL, queue text NOT NULL,
  is_kept boolean NOT NULL, is_shared boolean NOT NULL, max_backlog bigint NOT NULL,
  max_bytes bigint NOT NULL DEFAULT 268435456, ends_at timestamptz NOT NULL,
  UNIQUE (channel, name)
);
CREATE TABLE pbus.intake (
  mailbox bigint PRIMARY KEY, stored bigint NOT NULL, bytes bigint NOT NULL DEFAULT 0) WITH (fillfactor = 20);
CREATE TABLE pbus.outgo (
  mailbox bigint PRIMARY KEY, gone bigint NOT NULL, bytes bigint NOT NULL DEFAULT 0,
  fell bigint NOT NULL DEFAULT 0) WITH (fillfactor = 20);
CREATE TABLE pbus.stream (
  channel text NOT NULL, sender text NOT NULL, stream bigint NOT NULL, address text NOT NULL,
  lane text NOT NULL, last bigint NOT NULL, used_at timestamptz NOT NULL,
  PRIMARY KEY (channel, sender, stream, address, lane)
) WITH (fillfactor = 50);
CREATE TABLE pbus.holder (
  channel text NOT NULL, name text NOT NULL, ends_at timestamptz NOT NULL, is_dead boolean NOT NULL,
  PRIMARY KEY (channel, name)
);
CREATE TABLE pbus.held (
  hold bigint DEFAULT (random() * 9007199254740991)::bigint PRIMARY KEY,
  mailbox bigint NOT NULL, lane text NOT NULL, msg_id bigint NOT NULL,
  channel text NOT NULL, holder text NOT NULL, held_at timestamptz NOT NULL,
  size integer NOT NULL, gone integer[] NOT NULL, started integer[] NOT NULL,
  bytes bigint NOT NULL DEFAULT 0
);
CREATE INDEX held_holder ON pbus.held (channel, holder);
CREATE TABLE pbus.handled (
  mailbox bigint NOT NULL, id text NOT NULL, at timestamptz NOT NULL, PRIMARY KEY (mailbox, id)
);
CREATE INDEX handled_at ON pbus.handled ((mailbox + 0), at);
CREATE TABLE pbus.dead (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  mailbox bigint NOT NULL, lane text NOT NULL, letter jsonb NOT NULL, reason text NOT NULL,
  attempt integer NOT NULL, crashes integer NOT NULL, buried_at timestamptz NOT NULL,
  bytes bigint NOT NULL DEFAULT 0
);
CREATE INDEX dead_mailbox ON pbus.dead (mailbox);
CREATE UNLOGGED TABLE pbus.waiter (
  mailbox bigint PRIMARY KEY, channel text NOT NULL, holder text NOT NULL, bell text NOT NULL,
  held_s float8 NOT NULL, ends_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE UNLOGGED TABLE pbus.peer (
  id bigint PRIMARY KEY, channel text NOT NULL, name text NOT NULL, addresses text[] NOT NULL,
  is_follower boolean NOT NULL, missed bigint NOT NULL, ends_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX peer_channel ON pbus.peer (channel);
CREATE UNLOGGED TABLE pbus.wire (
  peer bigint NOT NULL, rank smallint NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY,
  payload bytea NOT NULL, PRIMARY KEY (peer, rank, id)
);
ALTER TABLE pbus.wire ALTER payload SET STORAGE EXTERNAL;
CREATE UNLOGGED TABLE pbus.touched (channel text PRIMARY KEY, at timestamptz NOT NULL);
CREATE FUNCTION pbus.mail_is_over(box pbus.mailbox) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION pbus.mail_open(
  ch text, who text, keep boolean, share boolean, most bigint, lease_s float8, most_bytes bigint
) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION pbus.mail_finish(holds bigint[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION pbus.wire_tidy() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION pbus.take_pbus_old() RETURNS void LANGUAGE sql AS '';
INSERT INTO pbus.meta VALUES ('0123456789abcdef');
