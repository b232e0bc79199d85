-- Delete entries that have no message left, from pbus' list and from their queue, and count what left
-- a mailbox: messages, one in `boxes` each, and bytes; less what came back, in `again`, of so many bytes each.
CREATE OR REPLACE FUNCTION pbus.queue_delete_settled(
  holds bigint[], queue_ids bigint[] DEFAULT '{}', again bigint[] DEFAULT '{}', sizes bigint[] DEFAULT '{}'
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  done record; ended bigint[] := '{}'; weights bigint[] := '{}';
BEGIN
  FOR done IN
    WITH ended AS (
      DELETE FROM pbus.in_flight WHERE hold = ANY(holds) RETURNING queue_id, lane, msg_id, bytes)
    SELECT m.id, m.base || '_' || e.lane AS queue, e.ids, e.bytes
      FROM (SELECT queue_id, lane, array_agg(msg_id) AS ids, sum(bytes) AS bytes FROM ended GROUP BY 1, 2) e
      CROSS JOIN LATERAL (SELECT * FROM pbus.queue m WHERE m.id = e.queue_id OFFSET 0) m
  LOOP
    PERFORM pgmq.delete(done.queue, done.ids);
    ended := ended || done.id;
    weights := weights || done.bytes::bigint;
  END LOOP;
  FOR done IN
    SELECT x.b, sum(x.n) AS n, sum(x.bytes) AS bytes FROM (
      SELECT b, 1 AS n, 0 AS bytes FROM unnest(queue_ids) b
      UNION ALL SELECT b, 0, w FROM unnest(ended, weights) e(b, w)
      UNION ALL SELECT b, 0, -w FROM unnest(again, sizes) a(b, w)) x(b, n, bytes)
    GROUP BY 1 ORDER BY 1
  LOOP
    PERFORM pbus.queue_count_out(done.b, done.n, done.bytes::bigint);
  END LOOP;
END $$;

-- Returns the mailboxes of which dead letters fell, and how many, as JSON, or NULL.
CREATE OR REPLACE FUNCTION pbus.queue_settle(
  ch text, s_hold bigint[], s_pos int[], s_queue bigint[], s_id text[], s_how text[],
  s_delay float8[], s_reason text[], dead_kept bigint, dead_bytes bigint
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  -- Text at a place of an array is found by counting from its start: not for each of thousands.
  has_others boolean := EXISTS (SELECT FROM unnest(s_how) how WHERE how <> 'ack');
  live int[]; x record; message jsonb; headers jsonb; since float8; again bigint[] := '{}';
  load int; sizes bigint[] := '{}'; given_up bigint[] := '{}'; ended bigint[] := '{}'; fallen jsonb;
  back bigint[] := '{}'; woken bigint[] := '{}';
BEGIN
  INSERT INTO pbus.handled
    SELECT DISTINCT s.its_queue, s.id, clock_timestamp() FROM unnest(s_queue, s_id, s_how) s(its_queue, id, how)
     WHERE s.how = 'ack' AND (SELECT true FROM pbus.queue m WHERE m.id = s.its_queue) ORDER BY 1, 2
    ON CONFLICT DO NOTHING;
  PERFORM FROM pbus.in_flight WHERE hold = ANY(s_hold) ORDER BY hold FOR UPDATE;
  -- Which of the settlements still mean something.
  SELECT array_agg(n) INTO live FROM (
    SELECT min(s.n) AS n FROM unnest(s_hold, s_pos) WITH ORDINALITY s(hold, pos, n)
      CROSS JOIN LATERAL (SELECT * FROM pbus.in_flight h WHERE h.hold = s.hold OFFSET 0) h
     WHERE NOT s.pos = ANY(h.gone) AND s.pos < h.size GROUP BY s.hold, s.pos) t;
  IF live IS NULL THEN RETURN NULL; END IF;
  FOR x IN
    SELECT m.base || '_' || h.lane AS queue, h.queue_id, h.lane, h.msg_id, h.hold, h.size, s_pos[n] AS pos,
           s_how[n] AS how, s_delay[n] AS delay, s_reason[n] AS reason
      FROM unnest(live) n
      CROSS JOIN LATERAL (SELECT * FROM pbus.in_flight h WHERE h.hold = s_hold[n] OFFSET 0) h
      CROSS JOIN LATERAL (SELECT * FROM pbus.queue m WHERE m.id = h.queue_id OFFSET 0) m
     WHERE has_others AND s_how[n] <> 'ack' ORDER BY n
  LOOP
    IF x.how = 'requeue' AND x.size = 1 THEN
      -- At its old place: what was stored after it, and is still there, comes after it.
      EXECUTE format('UPDATE pgmq.%I SET vt = clock_timestamp() + $2 * interval ''1 s'' WHERE msg_id = $1', 'q_' || x.queue)
        USING x.msg_id, x.delay;
      back := back || x.hold;
      woken := woken || x.queue_id;
      CONTINUE;
    END IF;
    EXECUTE format('SELECT message->$2, headers, pbus.queue_stored_at(headers, enqueued_at) FROM pgmq.%I WHERE msg_id = $1', 'q_' || x.queue)
      INTO message, headers, since USING x.msg_id, x.pos;
    CONTINUE WHEN message IS NULL;
    IF x.how <> 'dead_letter' THEN
      load := octet_length(message::text);
      PERFORM pgmq.send(x.queue, jsonb_build_array(message),
        headers || jsonb_build_object('n', 1, 'b', load, 't', since) || CASE x.how WHEN 'retry'
          THEN jsonb_build_object('a', coalesce((headers->>'a')::int, 1) + 1) ELSE '{}' END,
        clock_timestamp() + x.delay * interval '1 s');
      again := again || x.queue_id;
      sizes := sizes || load::bigint;
    ELSE
      given_up := given_up || x.queue_id;
      INSERT INTO pbus.dead_letter (queue_id, lane, message, reason, attempt, crashes, bytes, dead_since) VALUES (
        x.queue_id, x.lane, message, x.reason, coalesce((headers->>'a')::int, 1),
        coalesce((headers->>'c')::int, 0), octet_length(message::text) + octet_length(x.reason),
        clock_timestamp());
    END IF;
  END LOOP;
  FOR x IN
    SELECT t.hold, t.positions, cardinality(h.gone) + cardinality(t.positions) >= h.size AS is_whole
      FROM (SELECT s_hold[n] AS hold, array_agg(s_pos[n]) AS positions FROM unnest(live) n GROUP BY 1) t
      CROSS JOIN LATERAL (SELECT * FROM pbus.in_flight h WHERE h.hold = t.hold OFFSET 0) h
  LOOP
    IF x.hold = ANY(back) THEN
      CONTINUE;
    ELSIF x.is_whole THEN
      ended := ended || x.hold;
    ELSE
      UPDATE pbus.in_flight SET gone = gone || x.positions WHERE hold = x.hold;
    END IF;
  END LOOP;
  DELETE FROM pbus.in_flight WHERE hold = ANY(back);
  PERFORM pbus.queue_delete_settled(ended, ARRAY(
    SELECT s_queue[n] FROM unnest(live) n
     WHERE NOT has_others OR s_how[n] IN ('ack', 'dead_letter')), again, sizes);
  IF again <> '{}' OR woken <> '{}' THEN PERFORM pbus.queue_notify(ch, again || woken); END IF;
  FOR x IN SELECT DISTINCT m.id, m.name FROM pbus.queue m WHERE m.id = ANY(given_up) ORDER BY m.id LOOP
    load := pbus.queue_trim_dead(x.id, dead_kept, dead_bytes);
    IF load > 0 THEN
      fallen := coalesce(fallen, '[]') || jsonb_build_array(jsonb_build_array(x.name, load));
    END IF;
  END LOOP;
  RETURN fallen;
END $$;

-- Rows that are none of pbus' become dead letters: what they say, as text.
CREATE OR REPLACE FUNCTION pbus.queue_dead_letter_foreign(holds bigint[], reasons text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE x record; n int; load bigint;
BEGIN
  PERFORM FROM pbus.in_flight WHERE hold = ANY(holds) ORDER BY hold FOR UPDATE;
  FOR x IN
    SELECT h.hold, h.queue_id, h.lane, h.msg_id, r.reason, m.base || '_' || h.lane AS queue
      FROM unnest(holds, reasons) r(hold, reason)
      CROSS JOIN LATERAL (SELECT * FROM pbus.in_flight h WHERE h.hold = r.hold OFFSET 0) h
      CROSS JOIN LATERAL (SELECT * FROM pbus.queue m WHERE m.id = h.queue_id OFFSET 0) m
     ORDER BY h.queue_id, h.lane, h.msg_id
  LOOP
    EXECUTE format($sql$
      WITH gone AS (DELETE FROM pgmq.%I WHERE msg_id = $3 RETURNING message, headers),
      kept AS (
        INSERT INTO pbus.dead_letter (queue_id, lane, message, reason, attempt, crashes, dead_since, bytes)
          SELECT $1, $2, jsonb_build_array('row ' || $3, CASE
                   WHEN pbus.queue_carried_bytes(message, headers) < 16777216 THEN coalesce(message::text, 'null')
                   ELSE 'a row of ' || pg_column_size(message) || ' bytes' END),
                 $4, 1, 0, clock_timestamp(), pbus.queue_carried_bytes(message, headers) FROM gone)
      SELECT pbus.queue_entry_count(headers), pbus.queue_entry_bytes(headers) FROM gone $sql$, 'q_' || x.queue)
      INTO n, load USING x.queue_id, x.lane, x.msg_id, x.reason;
    PERFORM pbus.queue_count_out(x.queue_id, coalesce(n, 0), coalesce(load, 0));
  END LOOP;
  DELETE FROM pbus.in_flight WHERE hold = ANY(holds);
END $$;

CREATE OR REPLACE FUNCTION pbus.queue_requeue_dead(ch text, keys bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE x record; queue_ids bigint[] := '{}'; load int;
BEGIN
  FOR x IN
    WITH raised AS (
      DELETE FROM pbus.dead_letter d WHERE d.key = ANY(keys)
         AND (SELECT m.channel = ch FROM pbus.queue m WHERE m.id = d.queue_id)
      RETURNING d.key, d.queue_id, d.message,
        (SELECT m.base FROM pbus.queue m WHERE m.id = d.queue_id) || '_' || d.lane AS queue)
    SELECT * FROM raised ORDER BY queue_id, key
  LOOP
    load := octet_length(x.message::text);
    PERFORM pbus.queue_lock_count(x.queue_id, 'in');
    PERFORM pbus.queue_count_in(x.queue_id, 1, load);
    PERFORM pgmq.send(x.queue, jsonb_build_array(x.message), pbus.queue_new_headers(1, load));
    queue_ids := queue_ids || x.queue_id;
  END LOOP;
  PERFORM pbus.queue_notify(ch, queue_ids);
  RETURN cardinality(queue_ids);
END $$;

CREATE OR REPLACE FUNCTION pbus.queue_drop_dead(ch text, keys bigint[]) RETURNS bigint
LANGUAGE sql AS $$
  WITH gone AS (
    DELETE FROM pbus.dead_letter d WHERE d.key = ANY(keys)
       AND (SELECT m.channel = ch FROM pbus.queue m WHERE m.id = d.queue_id) RETURNING 1)
  SELECT count(*) FROM gone;
$$;
