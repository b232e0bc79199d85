-- Delete entries that have no message left, from pbus' list and from their queue, and count what left
-- a mailbox: messages, one in `boxes` each, and bytes; less what came back, in `again`, of so many bytes each.
CREATE OR REPLACE FUNCTION pbus.mail_finish(
  holds bigint[], boxes bigint[] DEFAULT '{}', again bigint[] DEFAULT '{}', sizes bigint[] DEFAULT '{}'
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  done record; ended bigint[] := '{}'; weights bigint[] := '{}';
BEGIN
  FOR done IN
    WITH ended AS (
      DELETE FROM pbus.held WHERE hold = ANY(holds) RETURNING mailbox, lane, msg_id, bytes)
    SELECT m.id, m.queue || '_' || e.lane AS queue, e.ids, e.bytes
      FROM (SELECT mailbox, lane, array_agg(msg_id) AS ids, sum(bytes) AS bytes FROM ended GROUP BY 1, 2) e
      CROSS JOIN LATERAL (SELECT * FROM pbus.mailbox m WHERE m.id = e.mailbox OFFSET 0) m
  LOOP
    PERFORM pgmq.delete(done.queue, done.ids);
    ended := ended || done.id;
    weights := weights || done.bytes::bigint;
  END LOOP;
  FOR done IN
    SELECT x.b, sum(x.n) AS n, sum(x.bytes) AS bytes FROM (
      SELECT b, 1 AS n, 0 AS bytes FROM unnest(boxes) b
      UNION ALL SELECT b, 0, w FROM unnest(ended, weights) e(b, w)
      UNION ALL SELECT b, 0, -w FROM unnest(again, sizes) a(b, w)) x(b, n, bytes)
    GROUP BY 1 ORDER BY 1
  LOOP
    UPDATE pbus.outgo SET gone = gone + done.n, bytes = bytes + done.bytes WHERE mailbox = done.b;
  END LOOP;
END $$;

-- Returns the mailboxes of which dead letters fell, and how many, as JSON, or NULL.
CREATE OR REPLACE FUNCTION pbus.mail_settle(
  ch text, s_hold bigint[], s_pos int[], s_box bigint[], s_id text[], s_how text[],
  s_delay float8[], s_reason text[], dead_kept bigint, dead_bytes bigint
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  -- Text at a place of an array is found by counting from its start: not for each of thousands.
  has_others boolean := EXISTS (SELECT FROM unnest(s_how) how WHERE how <> 'ack');
  live int[]; x record; letter jsonb; heads jsonb; since float8; again bigint[] := '{}';
  load int; sizes bigint[] := '{}'; buried bigint[] := '{}'; ended bigint[] := '{}'; fallen jsonb;
BEGIN
  INSERT INTO pbus.handled
    SELECT DISTINCT s.box, s.id, clock_timestamp() FROM unnest(s_box, s_id, s_how) s(box, id, how)
     WHERE s.how = 'ack' AND (SELECT true FROM pbus.mailbox m WHERE m.id = s.box) ORDER BY 1, 2
    ON CONFLICT DO NOTHING;
  PERFORM FROM pbus.held WHERE hold = ANY(s_hold) ORDER BY hold FOR UPDATE;
  -- Which of the settlements still mean something.
  SELECT array_agg(n) INTO live FROM (
    SELECT min(s.n) AS n FROM unnest(s_hold, s_pos) WITH ORDINALITY s(hold, pos, n)
      CROSS JOIN LATERAL (SELECT * FROM pbus.held h WHERE h.hold = s.hold OFFSET 0) h
     WHERE NOT s.pos = ANY(h.gone) AND s.pos < h.size GROUP BY s.hold, s.pos) t;
  IF live IS NULL THEN RETURN NULL; END IF;
  FOR x IN
    SELECT m.queue || '_' || h.lane AS queue, h.mailbox, h.lane, h.msg_id, s_pos[n] AS pos,
           s_how[n] AS how, s_delay[n] AS delay, s_reason[n] AS reason
      FROM unnest(live) n
      CROSS JOIN LATERAL (SELECT * FROM pbus.held h WHERE h.hold = s_hold[n] OFFSET 0) h
      CROSS JOIN LATERAL (SELECT * FROM pbus.mailbox m WHERE m.id = h.mailbox OFFSET 0) m
     WHERE has_others AND s_how[n] <> 'ack' ORDER BY n
  LOOP
    EXECUTE format('SELECT message->$2, headers, pbus.mail_since(headers, enqueued_at) FROM pgmq.%I WHERE msg_id = $1', 'q_' || x.queue)
      INTO letter, heads, since USING x.msg_id, x.pos;
    CONTINUE WHEN letter IS NULL;
    IF x.how <> 'dead_letter' THEN
      load := octet_length(letter::text);
      PERFORM pgmq.send(x.queue, jsonb_build_array(letter),
        heads || jsonb_build_object('n', 1, 'b', load, 't', since) || CASE x.how WHEN 'retry'
          THEN jsonb_build_object('a', coalesce((heads->>'a')::int, 1) + 1) ELSE '{}' END,
        clock_timestamp() + x.delay * interval '1 s');
      again := again || x.mailbox;
      sizes := sizes || load::bigint;
    ELSE
      buried := buried || x.mailbox;
      INSERT INTO pbus.dead (mailbox, lane, letter, reason, attempt, crashes, bytes, buried_at) VALUES (
        x.mailbox, x.lane, letter, x.reason, coalesce((heads->>'a')::int, 1),
        coalesce((heads->>'c')::int, 0), octet_length(letter::text) + octet_length(x.reason),
        clock_timestamp());
    END IF;
  END LOOP;
  FOR x IN
    SELECT t.hold, t.positions, cardinality(h.gone) + cardinality(t.positions) >= h.size AS is_whole
      FROM (SELECT s_hold[n] AS hold, array_agg(s_pos[n]) AS positions FROM unnest(live) n GROUP BY 1) t
      CROSS JOIN LATERAL (SELECT * FROM pbus.held h WHERE h.hold = t.hold OFFSET 0) h
  LOOP
    IF x.is_whole THEN
      ended := ended || x.hold;
    ELSE
      UPDATE pbus.held SET gone = gone || x.positions WHERE hold = x.hold;
    END IF;
  END LOOP;
  PERFORM pbus.mail_finish(ended, ARRAY(
    SELECT s_box[n] FROM unnest(live) n
     WHERE NOT has_others OR s_how[n] IN ('ack', 'dead_letter')), again, sizes);
  IF again <> '{}' THEN PERFORM pbus.mail_ring(ch, again); END IF;
  FOR x IN SELECT DISTINCT m.id, m.name FROM pbus.mailbox m WHERE m.id = ANY(buried) ORDER BY m.id LOOP
    load := pbus.mail_dead_trim(x.id, dead_kept, dead_bytes);
    IF load > 0 THEN
      fallen := coalesce(fallen, '[]') || jsonb_build_array(jsonb_build_array(x.name, load));
    END IF;
  END LOOP;
  RETURN fallen;
END $$;

-- Rows that are none of pbus' become dead letters: what they say, as text.
CREATE OR REPLACE FUNCTION pbus.mail_refuse(holds bigint[], reasons text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE x record; n int; load bigint;
BEGIN
  PERFORM FROM pbus.held WHERE hold = ANY(holds) ORDER BY hold FOR UPDATE;
  FOR x IN
    SELECT h.hold, h.mailbox, h.lane, h.msg_id, r.reason, m.queue || '_' || h.lane AS queue
      FROM unnest(holds, reasons) r(hold, reason)
      CROSS JOIN LATERAL (SELECT * FROM pbus.held h WHERE h.hold = r.hold OFFSET 0) h
      CROSS JOIN LATERAL (SELECT * FROM pbus.mailbox m WHERE m.id = h.mailbox OFFSET 0) m
     ORDER BY h.mailbox, h.lane, h.msg_id
  LOOP
    EXECUTE format($sql$
      WITH gone AS (DELETE FROM pgmq.%I WHERE msg_id = $3 RETURNING message, headers),
      kept AS (
        INSERT INTO pbus.dead (mailbox, lane, letter, reason, attempt, crashes, buried_at, bytes)
          SELECT $1, $2, jsonb_build_array('row ' || $3, CASE
                   WHEN pbus.mail_bytes(message, headers) < 16777216 THEN coalesce(message::text, 'null')
                   ELSE 'a row of ' || pg_column_size(message) || ' bytes' END),
                 $4, 1, 0, clock_timestamp(), pbus.mail_bytes(message, headers) FROM gone)
      SELECT pbus.mail_size(headers), pbus.mail_weight(headers) FROM gone $sql$, 'q_' || x.queue)
      INTO n, load USING x.mailbox, x.lane, x.msg_id, x.reason;
    UPDATE pbus.outgo SET gone = gone + coalesce(n, 0), bytes = bytes + coalesce(load, 0) WHERE mailbox = x.mailbox;
  END LOOP;
  DELETE FROM pbus.held WHERE hold = ANY(holds);
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_revive(ch text, keys bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE x record; boxes bigint[] := '{}'; load int;
BEGIN
  FOR x IN
    WITH raised AS (
      DELETE FROM pbus.dead d WHERE d.key = ANY(keys)
         AND (SELECT m.channel = ch FROM pbus.mailbox m WHERE m.id = d.mailbox)
      RETURNING d.key, d.mailbox, d.letter,
        (SELECT m.queue FROM pbus.mailbox m WHERE m.id = d.mailbox) || '_' || d.lane AS queue)
    SELECT * FROM raised ORDER BY mailbox, key
  LOOP
    load := octet_length(x.letter::text);
    UPDATE pbus.intake SET stored = stored + 1, bytes = bytes + load WHERE mailbox = x.mailbox;
    PERFORM pgmq.send(x.queue, jsonb_build_array(x.letter), pbus.mail_new_heads(1, load));
    boxes := boxes || x.mailbox;
  END LOOP;
  PERFORM pbus.mail_ring(ch, boxes);
  RETURN cardinality(boxes);
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_drop_dead(ch text, keys bigint[]) RETURNS bigint
LANGUAGE sql AS $$
  WITH gone AS (
    DELETE FROM pbus.dead d WHERE d.key = ANY(keys)
       AND (SELECT m.channel = ch FROM pbus.mailbox m WHERE m.id = d.mailbox) RETURNING 1)
  SELECT count(*) FROM gone;
$$;
