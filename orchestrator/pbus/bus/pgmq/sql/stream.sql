-- Messages that are not stored: a row is one payload on its way to one process. What a process did
-- not take falls with its lease, and all of it with a crash of the server: numbers show the gap.

CREATE UNLOGGED TABLE IF NOT EXISTS pbus.peer (
  id bigint PRIMARY KEY, channel text NOT NULL, name text NOT NULL, addresses text[] NOT NULL,
  is_follower boolean NOT NULL, missed bigint NOT NULL, ends_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS peer_channel ON pbus.peer (channel);
-- rank: 0 about credit, 1 the system lane, 2 the data lane and whatever a follower gets.
CREATE UNLOGGED TABLE IF NOT EXISTS pbus.stream_payload (
  peer bigint NOT NULL, rank smallint NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY,
  payload bytea NOT NULL, PRIMARY KEY (peer, rank, id)
);
ALTER TABLE pbus.stream_payload ALTER payload SET STORAGE EXTERNAL;  -- to compress costs more than to move

-- Join, or renew, and remove what ran out; returns whether we were there before.
CREATE OR REPLACE FUNCTION pbus.stream_join(
  me bigint, ch text, who text, wanted text[], follows boolean, lease_s float8
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE ends timestamptz := clock_timestamp() + lease_s * interval '1 s'; gone bigint[];
BEGIN
  UPDATE pbus.peer SET addresses = wanted, ends_at = ends WHERE id = me;
  IF FOUND THEN
    gone := ARRAY(SELECT id FROM pbus.peer WHERE ends_at <= clock_timestamp()
                   ORDER BY id FOR UPDATE SKIP LOCKED);
    IF gone <> '{}' THEN
      DELETE FROM pbus.peer WHERE id = ANY(gone);
      DELETE FROM pbus.stream_payload WHERE peer = ANY(gone);
    END IF;
    RETURN true;
  END IF;
  INSERT INTO pbus.peer VALUES (me, ch, who, wanted, follows, 0, ends);
  RETURN false;
END $$;

CREATE OR REPLACE FUNCTION pbus.stream_leave(me bigint) RETURNS void LANGUAGE sql AS $$
  DELETE FROM pbus.peer WHERE id = me;
  DELETE FROM pbus.stream_payload WHERE peer = me;
$$;

-- Those of a process that its supervisor saw end; a name begins with what the supervisor gave it.
CREATE OR REPLACE FUNCTION pbus.stream_forget(ch text, prefixes text[]) RETURNS void
LANGUAGE sql AS $$
  WITH gone AS (
    DELETE FROM pbus.peer WHERE channel = ch
       AND EXISTS (SELECT FROM unnest(prefixes) p WHERE starts_with(name, p) AND name <> p)
    RETURNING id)
  DELETE FROM pbus.stream_payload WHERE peer = ANY(ARRAY(SELECT id FROM gone));
$$;

-- Rows for those who left while they were written.
CREATE OR REPLACE FUNCTION pbus.stream_tidy() RETURNS void LANGUAGE sql AS $$
  DELETE FROM pbus.stream_payload w WHERE (SELECT true FROM pbus.peer p WHERE p.id = w.peer) IS NULL;
$$;

-- Who does not read for so long gets no more, and the gap shows later.
CREATE OR REPLACE FUNCTION pbus.stream_is_full(who bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT FROM pbus.stream_payload WHERE peer = who OFFSET 100 LIMIT 1) AND (
    SELECT count(*) >= 4000 OR sum(octet_length(payload)) > 67108864
      FROM pbus.stream_payload WHERE peer = who);
$$;

-- How many processes got each payload; one of NULL is counted, not sent. An address is a worker's
-- name or * for all, but in lane c the name of a process.
CREATE OR REPLACE FUNCTION pbus.stream_put(
  ch text, lanes text[], addresses text[], sizes int[], payloads bytea[]
) RETURNS int[] LANGUAGE plpgsql AS $$
DECLARE heard int[]; woken text;
BEGIN
  WITH here AS MATERIALIZED (
    SELECT p.*, pbus.stream_is_full(p.id) AS is_full
      FROM pbus.peer p WHERE p.channel = ch AND p.ends_at > clock_timestamp()),
  goes AS MATERIALIZED (
    SELECT e.n, e.lane, e.size, h.id, h.is_follower, h.is_full
      FROM unnest(lanes, addresses, sizes) WITH ORDINALITY e(lane, address, size, n), here h
     WHERE CASE WHEN e.lane = 'c' THEN e.address = h.name
                ELSE h.is_follower OR e.address = '*' OR e.address = ANY(h.addresses) END),
  put AS (
    INSERT INTO pbus.stream_payload (peer, rank, payload)
      SELECT g.id, CASE WHEN g.is_follower THEN 2 WHEN g.lane = 'c' THEN 0 WHEN g.lane = 's' THEN 1
                        ELSE 2 END, payloads[g.n]
        FROM goes g WHERE NOT g.is_full AND payloads[g.n] IS NOT NULL ORDER BY g.n
      RETURNING peer),
  unseen AS (
    UPDATE pbus.peer p SET missed = p.missed + (
        SELECT sum(g.size) FROM goes g WHERE g.id = p.id AND payloads[g.n] IS NOT NULL)
     WHERE p.id = ANY(ARRAY(SELECT g.id FROM goes g
             WHERE g.is_follower AND g.is_full AND payloads[g.n] IS NOT NULL)))
  SELECT ARRAY(SELECT (SELECT count(*) FROM goes g
                        WHERE g.n = i AND NOT g.is_follower AND NOT g.is_full)
                 FROM generate_subscripts(lanes, 1) i ORDER BY i),
         (SELECT string_agg(DISTINCT to_hex(peer), ' ') FROM put)
    INTO heard, woken;
  PERFORM pbus.stream_notify(ch, woken);
  RETURN heard;
END $$;

CREATE OR REPLACE FUNCTION pbus.stream_notify(ch text, peers text) RETURNS void LANGUAGE sql AS $$
  SELECT pg_notify(pbus.notify_channel(ch), 'w ' || CASE WHEN length(peers) < 7900 THEN peers ELSE '' END)
   WHERE peers IS NOT NULL;
$$;

-- The next payloads, once those read before are done with: an answer that was lost is read again.
CREATE OR REPLACE FUNCTION pbus.stream_read(me bigint, ranks smallint[], ids bigint[], most int)
RETURNS TABLE (rank smallint, id bigint, payload bytea, missed bigint) LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM pbus.stream_payload w WHERE w.peer = me AND w.rank = ANY(ranks) AND w.id = ANY(ids);
  RETURN QUERY SELECT w.rank, w.id, w.payload, p.missed
    FROM pbus.stream_payload w JOIN pbus.peer p ON p.id = w.peer
   WHERE w.peer = me ORDER BY w.rank, w.id LIMIT most;
END $$;

-- Followers see stored messages, too: entries of [[id, body], …], as payloads like all others; the
-- streams of stored messages are counted by themselves, so their numbers are made negative.
CREATE OR REPLACE FUNCTION pbus.stream_show(
  ch text, senders text[], streams bigint[], lanes text[], addresses text[], firsts bigint[],
  entries text[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE woken text;
BEGIN
  WITH shown AS MATERIALIZED (
    SELECT e.n, p.size, convert_to(concat_ws(E'\n', jsonb_build_array(
             1, e.sender, -e.stream, e.lane, e.address, e.first, p.size, 0)::text, p.lines), 'UTF8') AS payload
      FROM unnest(senders, streams, lanes, addresses, firsts, entries) WITH ORDINALITY
             e(sender, stream, lane, address, first, entry, n)
      CROSS JOIN LATERAL (
        SELECT count(*) AS size, string_agg(v->>1, E'\n' ORDER BY at) AS lines
          FROM jsonb_array_elements(e.entry::jsonb) WITH ORDINALITY a(v, at)) p),
  followers AS MATERIALIZED (
    SELECT p.id, pbus.stream_is_full(p.id) AS is_full FROM pbus.peer p
     WHERE p.channel = ch AND p.is_follower AND p.ends_at > clock_timestamp()),
  put AS (
    INSERT INTO pbus.stream_payload (peer, rank, payload)
      SELECT f.id, 2, s.payload FROM shown s, followers f WHERE NOT f.is_full ORDER BY s.n
      RETURNING peer),
  unseen AS (
    UPDATE pbus.peer p SET missed = p.missed + (SELECT sum(size) FROM shown)
     WHERE p.id = ANY(ARRAY(SELECT f.id FROM followers f WHERE f.is_full)))
  SELECT string_agg(DISTINCT to_hex(peer), ' ') FROM put INTO woken;
  PERFORM pbus.stream_notify(ch, woken);
END $$;
