-- What a session's scan of a queue is called; by the table, as another one of that name has other rows.
CREATE OR REPLACE FUNCTION pbus.queue_scan_name(base text, its_lane text) RETURNS text
LANGUAGE sql STABLE AS $$
  SELECT 'pbus.scan_' || coalesce(to_regclass('pgmq.q_' || base || '_' || its_lane)::oid, 0);
$$;

-- The part of queue_fetch that depends on the queues: a function for each mailbox, planned once a
-- session. What plans cost, each time, is more than all else a take of a few messages does.
CREATE OR REPLACE FUNCTION pbus.queue_build_fetch(base text) RETURNS void LANGUAGE plpgsql AS $build$
DECLARE
  fetch_lane text := $lane$
      most := mosts[array_position(lanes, %1$L)];
      ids := '{}';
      got := 0;
      bytes := 0;
      IF most > 0 THEN
        state := pbus.scan_begin(%3$L);
        IF pbus.scan_is_due(state) THEN
          state := pbus.scan_advance(state, ARRAY(
            SELECT q.msg_id FROM pgmq.%2$I q WHERE q.msg_id = ANY(state[5:])
            UNION ALL
            SELECT q.msg_id FROM pgmq.%2$I q WHERE q.msg_id > state[2] AND q.msg_id <= state[3]
            ORDER BY 1 LIMIT 501));
        END IF;
        IF cardinality(state) > 4 THEN
          FOR r IN SELECT q.msg_id, pbus.queue_entry_count(q.headers) AS n,
                          pbus.queue_carried_bytes(q.message, q.headers) AS bytes FROM pgmq.%2$I q
                    WHERE q.msg_id = ANY(state[5:]) AND q.vt <= clock_timestamp()
                    ORDER BY q.msg_id LIMIT most FOR UPDATE SKIP LOCKED
          LOOP
            ids := ids || r.msg_id;
            got := got + greatest(r.n, 1);
            bytes := bytes + r.bytes;
            EXIT WHEN got >= most OR bytes > 1048576;
          END LOOP;
        END IF;
        IF got < most AND bytes <= 1048576 THEN
          FOR r IN SELECT q.msg_id, pbus.queue_entry_count(q.headers) AS n,
                          pbus.queue_carried_bytes(q.message, q.headers) AS bytes FROM pgmq.%2$I q
                    WHERE q.msg_id > state[2] AND q.vt <= clock_timestamp()
                    ORDER BY q.msg_id LIMIT most FOR UPDATE SKIP LOCKED
          LOOP
            ids := ids || r.msg_id;
            got := got + greatest(r.n, 1);
            bytes := bytes + r.bytes;
            EXIT WHEN got >= most OR bytes > 1048576;
          END LOOP;
        END IF;
        PERFORM pbus.scan_end(%3$L, state, CASE WHEN got > 0 THEN ids[cardinality(ids)]
          ELSE pg_sequence_last_value(to_regclass(%4$L)) END);
      END IF;
      IF got > 0 THEN
        RETURN QUERY
          WITH entry AS (
            UPDATE pgmq.%2$I SET vt = clock_timestamp() + hold_s * interval '2 s',
              read_ct = read_ct + 1, last_read_at = clock_timestamp()
            WHERE msg_id = ANY(ids) RETURNING msg_id, headers, message),
          fetched AS (
            INSERT INTO pbus.in_flight (queue_id, lane, msg_id, channel, consumer, held_at, size, gone, started, bytes)
            SELECT its_queue, %1$L, e.msg_id, ch, who, clock_timestamp(),
                   CASE jsonb_typeof(e.message) WHEN 'array' THEN jsonb_array_length(e.message) ELSE 1 END,
                   ARRAY(SELECT p.at::int - 1 FROM jsonb_array_elements(
                       CASE jsonb_typeof(e.message) WHEN 'array' THEN e.message ELSE '[]' END)
                       WITH ORDINALITY p(message, at)
                     WHERE (SELECT true FROM pbus.handled d WHERE d.queue_id = its_queue AND d.id = p.message->>0)),
                   '{}', pbus.queue_entry_bytes(e.headers) FROM entry e
            RETURNING in_flight.hold, in_flight.msg_id, in_flight.gone),
          counted AS (
            SELECT pbus.queue_count_out(its_queue, sum(cardinality(t.gone)), 0) FROM fetched t
            HAVING sum(cardinality(t.gone)) > 0)
          SELECT t.hold, %1$L, pbus.queue_headers(q.headers, q.msg_id, q.enqueued_at),
                 pbus.queue_message_text(q.message, q.headers), t.gone
            FROM fetched t CROSS JOIN (SELECT count(*) FROM counted) c
            CROSS JOIN LATERAL (SELECT * FROM pgmq.%2$I q WHERE q.msg_id = t.msg_id OFFSET 0) q
           ORDER BY t.msg_id;
        PERFORM set_config('pbus.fetched', (bytes +
          current_setting('pbus.fetched')::bigint)::text, true);
      END IF; $lane$;
BEGIN
  EXECUTE format($sql$
    CREATE OR REPLACE FUNCTION pbus.%I(
      its_queue bigint, lanes text[], mosts int[], ch text, who text, hold_s float8
    ) RETURNS TABLE (hold bigint, lane text, headers text, message text, gone int[])
    LANGUAGE plpgsql AS $$
    #variable_conflict use_column
    DECLARE r record; ids bigint[]; got int; bytes bigint; most int; state bigint[];
    BEGIN %s %s
    END $$ $sql$, 'fetch_' || base,
    format(fetch_lane, 's', 'q_' || base || '_s', pbus.queue_scan_name(base, 's'),
           'pgmq.q_' || base || '_s_msg_id_seq'),
    format(fetch_lane, 'd', 'q_' || base || '_d', pbus.queue_scan_name(base, 'd'),
           'pgmq.q_' || base || '_d_msg_id_seq'));
END $build$;

-- The message of an entry, unless it is so large that it should not come with others.
CREATE OR REPLACE FUNCTION pbus.queue_message_text(message jsonb, headers jsonb) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN pbus.queue_carried_bytes(message, headers) < 1048576 THEN coalesce(message::text, 'null') END;
$$;

CREATE OR REPLACE FUNCTION pbus.queue_read_message(its_hold bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE x record; its_message text;
BEGIN
  SELECT m.base || '_' || h.lane AS queue, h.msg_id INTO x FROM pbus.in_flight h
    CROSS JOIN LATERAL (SELECT * FROM pbus.queue m WHERE m.id = h.queue_id OFFSET 0) m
   WHERE h.hold = its_hold;
  IF FOUND THEN
    EXECUTE format('SELECT message::text FROM pgmq.%I WHERE msg_id = $1', 'q_' || x.queue)
      INTO its_message USING x.msg_id;
  END IF;
  RETURN its_message;
END $$;

-- What is wanted and free; the headers are those of queue_headers, a message of NULL is to be read by
-- itself. A hold of NULL: when (in seconds) something wanted will be free; 0 where the answer ended
-- at 4 MiB, which bounds it however many mailboxes are wanted.
-- known: the holds that the caller knows of, where an answer may have been lost, else NULL.
CREATE OR REPLACE FUNCTION pbus.queue_fetch(
  ch text, who text, w_name text[], w_lane text[], w_limit int[], known bigint[], is_alive boolean,
  hold_s float8
) RETURNS TABLE (hold bigint, its_queue bigint, mailbox text, lane text, headers text, message text,
                 gone int[], due float8) LANGUAGE plpgsql AS $$
DECLARE
  me pbus.consumer; w record; r record; soonest timestamptz; one timestamptz;
  began timestamptz := clock_timestamp(); ends timestamptz := began + hold_s * interval '1 s';
  is_any boolean := false; is_cut boolean := false; state bigint[];
BEGIN
  -- What was fetched just before a crash is in its queue again, so no wait for the disk is needed.
  PERFORM set_config('synchronous_commit', 'off', true);
  SELECT * INTO me FROM pbus.consumer WHERE channel = ch AND name = who FOR UPDATE;
  IF NOT FOUND THEN
    -- A requeue waits for us, or has left word of its dead.
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('pbus consumers ' || ch, 0));
    INSERT INTO pbus.consumer
      SELECT ch, who, ends, EXISTS (
        SELECT FROM pbus.consumer WHERE channel = ch AND is_dead AND starts_with(who, name))
      ON CONFLICT DO NOTHING;
    SELECT * INTO me FROM pbus.consumer WHERE channel = ch AND name = who FOR UPDATE;
  END IF;
  IF me.is_dead AND NOT is_alive THEN
    RAISE EXCEPTION 'the consumer was taken for dead' USING ERRCODE = 'PB001';
  END IF;
  IF me.is_dead OR me.ends_at < clock_timestamp() + hold_s / 2 * interval '1 s' THEN
    UPDATE pbus.consumer SET is_dead = false, ends_at = ends WHERE channel = ch AND name = who;
  END IF;
  IF known IS NOT NULL THEN
    FOR r IN
      SELECT m.base || '_' || h.lane AS queue, m.id, m.name, h.lane, h.is_cut, h.holds
        FROM (SELECT o.queue_id, o.lane, bool_or(o.before >= 4194304) AS is_cut,
                     array_agg(o.hold) FILTER (WHERE o.before < 4194304) AS holds
                FROM (SELECT x.*, sum(x.bytes) OVER (ORDER BY x.queue_id, x.lane, x.msg_id) - x.bytes AS before
                        FROM pbus.in_flight x WHERE x.hold = ANY(ARRAY(
                          SELECT d.hold FROM pbus.in_flight d WHERE d.channel = ch AND d.consumer = who
                          EXCEPT SELECT unnest(known)))) o GROUP BY 1, 2) h
        CROSS JOIN LATERAL (SELECT * FROM pbus.queue m WHERE m.id = h.queue_id OFFSET 0) m
    LOOP
      is_cut := is_cut OR r.is_cut;
      RETURN QUERY EXECUTE format('SELECT h.hold, $1, $2, $3, pbus.queue_headers(q.headers, q.msg_id, q.enqueued_at), pbus.queue_message_text(q.message, q.headers), h.gone, NULL::float8 FROM pbus.in_flight h CROSS JOIN LATERAL (SELECT * FROM pgmq.%I q WHERE q.msg_id = h.msg_id OFFSET 0) q WHERE h.hold = ANY($4) ORDER BY q.msg_id', 'q_' || r.queue)
        USING r.id, r.name, r.lane, r.holds;
      is_any := true;
    END LOOP;
    IF is_cut THEN
      hold := NULL;
      due := 0;
      RETURN NEXT;
    END IF;
    IF is_any THEN RETURN; END IF;
  END IF;
  PERFORM set_config('pbus.fetched', '0', true);
  FOR w IN
    SELECT m.id, m.name, m.base, x.lanes, x.mosts
      FROM (SELECT u.name, array_agg(u.lane) AS lanes, array_agg(u.most) AS mosts, min(u.n) AS n
              FROM unnest(w_name, w_lane, w_limit) WITH ORDINALITY u(name, lane, most, n)
             GROUP BY 1 ORDER BY min(u.n) OFFSET 0) x
      CROSS JOIN LATERAL (
        SELECT * FROM pbus.queue m WHERE m.channel = ch AND m.name = x.name FOR KEY SHARE) m
     ORDER BY x.n
  LOOP
    IF current_setting('pbus.fetched')::bigint > 4194304 THEN
      hold := NULL;
      due := 0;
      RETURN NEXT;
      EXIT;
    END IF;
    RETURN QUERY EXECUTE format('SELECT t.hold, $1, $2, t.lane, t.headers, t.message, t.gone, NULL::float8 FROM pbus.%I($1, $3, $4, $5, $6, $7) t', 'fetch_' || w.base)
      USING w.id, w.name, w.lanes, w.mosts, ch, who, hold_s;
    is_any := is_any OR FOUND;
  END LOOP;
  IF is_any THEN RETURN; END IF;
  FOR w IN
    SELECT m.base, x.lane, m.base || '_' || x.lane AS queue FROM unnest(w_name, w_lane) x(name, lane)
      CROSS JOIN LATERAL (
        SELECT * FROM pbus.queue m WHERE m.channel = ch AND m.name = x.name FOR KEY SHARE) m
  LOOP
    -- Since we began: what became free while we looked is due at once.
    state := pbus.scan_begin(pbus.queue_scan_name(w.base, w.lane));
    EXECUTE format('SELECT min(q.vt) FILTER (WHERE q.vt > $1) FROM (
        SELECT vt FROM pgmq.%1$I WHERE msg_id > $2
        UNION ALL SELECT vt FROM pgmq.%1$I WHERE msg_id = ANY($3)) q', 'q_' || w.queue)
      INTO one USING began, state[2], state[5:];
    soonest := least(soonest, one);
  END LOOP;
  IF soonest IS NOT NULL THEN
    hold := NULL;
    due := extract(epoch FROM soonest - clock_timestamp());
    RETURN NEXT;
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pbus.queue_mark_started(holds bigint[], positions int[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE x record;
BEGIN
  FOR x IN SELECT u.hold, array_agg(u.position) AS positions
             FROM unnest(holds, positions) u(hold, position) GROUP BY 1 ORDER BY 1
  LOOP
    UPDATE pbus.in_flight SET started = started || x.positions WHERE hold = x.hold;
  END LOOP;
END $$;
