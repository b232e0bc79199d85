-- Stored messages. A row of a queue is an entry: a jsonb array of [id, body] pairs, and in its headers
-- n (how many), a (attempt), c (crashes), s (suspect), t (when it was first stored, where its row
-- is a later one) and b (bytes, about). Only entries of one have a, c or t. Others may
-- write rows of any kind into a queue.
--
-- Plans are kept, and may have been made while a table was nearly empty: a join that the planner may
-- turn round can then compare all rows with all. So joins of tables are LATERAL subqueries with OFFSET 0
-- (or a lock), or scalar subqueries, which are done in the order in which they are written, by an
-- index; and UPDATE and DELETE find their rows by = ANY(array), or one by one.

-- How many messages a row is counted as; 0: it is none of ours.
CREATE OR REPLACE FUNCTION pbus.queue_entry_count(headers jsonb) RETURNS int LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN headers->>'n' ~ '^[0-9]{1,6}$' THEN (headers->>'n')::int ELSE 0 END;
$$;

-- How much there is to carry, about: a row of another's making may unfold.
CREATE OR REPLACE FUNCTION pbus.queue_carried_bytes(message jsonb, headers jsonb) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
  SELECT greatest(pg_column_size(message), CASE WHEN headers->>'b' ~ '^[0-9]{1,9}$'
                                                THEN (headers->>'b')::bigint END, 0);
$$;

-- Headers of a new entry.
CREATE OR REPLACE FUNCTION pbus.queue_new_headers(many bigint, bytes int) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
  SELECT jsonb_build_object('n', many, 'b', bytes);
$$;

-- How many bytes a row is counted as; 0: it does not say.
CREATE OR REPLACE FUNCTION pbus.queue_entry_bytes(headers jsonb) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN headers->>'b' ~ '^[0-9]{1,9}$' THEN (headers->>'b')::bigint ELSE 0 END;
$$;

-- How many bytes all mailboxes of a channel hold.
CREATE OR REPLACE FUNCTION pbus.queue_channel_bytes(ch text) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT coalesce(sum((SELECT u.bytes FROM pbus.queue_used(m.id) u)), 0)::bigint
    FROM pbus.queue m WHERE m.channel = ch;
$$;

-- Why a mailbox has no room, as JSON, or NULL; an empty one takes anything. See queues/store.py, no_room.
CREATE OR REPLACE FUNCTION pbus.queue_full_reason(
  ch text, who text, used bigint, need bigint, most bigint, weight bigint, size bigint,
  most_bytes bigint, copies int, coming bigint
) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE total bigint;
BEGIN
  IF used <= 0 THEN RETURN NULL; END IF;
  IF used + need > most THEN RETURN jsonb_build_array('n', who, used, most); END IF;
  IF weight + size > most_bytes THEN RETURN jsonb_build_array('b', who, weight, most_bytes); END IF;
  IF weight + size > most_bytes / 64 THEN
    total := pbus.queue_channel_bytes(ch) + coming;
    IF total + size * copies > most_bytes * 4 THEN
      RETURN jsonb_build_array('c', who, total, most_bytes * 4);
    END IF;
  END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION pbus.queue_stored_at(headers jsonb, enqueued timestamptz) RETURNS float8
LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN headers->>'t' ~ '^[0-9]{1,12}([.][0-9]*)?$' THEN (headers->>'t')::float8
              ELSE extract(epoch FROM enqueued)::float8 END;
$$;

-- Headers as a receiver gets them: with the entry's number (i) and its age in seconds (e), too.
CREATE OR REPLACE FUNCTION pbus.queue_headers(headers jsonb, id bigint, enqueued timestamptz) RETURNS text
LANGUAGE sql VOLATILE AS $$
  SELECT (CASE jsonb_typeof(headers) WHEN 'object' THEN headers ELSE '{}' END || jsonb_build_object('i', id,
    'e', extract(epoch FROM clock_timestamp())::float8 - pbus.queue_stored_at(headers, enqueued)))::text;
$$;

CREATE OR REPLACE FUNCTION pbus.notify_channel(ch text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT 'pbus_' || left(md5(ch), 24);
$$;

-- What the bell calls a mailbox.
CREATE OR REPLACE FUNCTION pbus.queue_token(name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT left(md5(name), 8);
$$;

-- One notification a statement: the tokens of the mailboxes, or nothing for all.
CREATE OR REPLACE FUNCTION pbus.queue_notify(ch text, queue_ids bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE names text;
BEGIN
  SELECT string_agg(pbus.queue_token(name), ' ') INTO names FROM pbus.queue WHERE id = ANY(queue_ids);
  IF names IS NOT NULL THEN
    PERFORM pg_notify(pbus.notify_channel(ch), CASE WHEN length(names) < 7900 THEN names ELSE '' END);
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pbus.queue_remove(its_queue bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  base text; ch text; one text;
BEGIN
  SELECT q.base, q.channel INTO base, ch FROM pbus.queue q WHERE q.id = its_queue FOR UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  DELETE FROM pbus.queue_lock WHERE queue_id = its_queue AND side = 'in';  -- waits for writers
  DELETE FROM pbus.enqueued_count WHERE queue_id = its_queue;
  DELETE FROM pbus.in_flight WHERE channel = ch AND queue_id = its_queue;
  DELETE FROM pbus.queue_lock WHERE queue_id = its_queue;
  DELETE FROM pbus.dequeued_count WHERE queue_id = its_queue;
  DELETE FROM pbus.handled WHERE queue_id = its_queue;
  DELETE FROM pbus.dead_letter WHERE queue_id = its_queue;
  DELETE FROM pbus.push_consumer WHERE queue_id = its_queue;
  DELETE FROM pbus.queue WHERE id = its_queue;
  FOREACH one IN ARRAY ARRAY['_d', '_s'] LOOP PERFORM pgmq.drop_queue(base || one); END LOOP;
  EXECUTE format('DROP FUNCTION IF EXISTS pbus.%I, pbus.%I', 'fetch_' || base, 'put_' || base);
END $$;

-- When a process was last in touch with the channel's queues; missing after a crash of the server.
CREATE UNLOGGED TABLE IF NOT EXISTS pbus.last_renewal (channel text PRIMARY KEY, at timestamptz NOT NULL);

-- Whether a queue is to be removed: it is neither durable nor renewed, and empty, or its messages are old.
CREATE OR REPLACE FUNCTION pbus.queue_is_expired(its_queue pbus.queue) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
  SELECT NOT its_queue.is_durable AND its_queue.ends_at <= clock_timestamp() AND (
    its_queue.ends_at <= clock_timestamp() - interval '10 min' OR
      (SELECT u.messages > 0 FROM pbus.queue_used(its_queue.id) u) IS NOT TRUE);
$$;

CREATE OR REPLACE FUNCTION pbus.queue_is_complete(its_queue bigint, base text) RETURNS boolean
LANGUAGE sql STABLE AS $$
  SELECT to_regclass('pgmq.q_' || base || '_d') IS NOT NULL
     AND to_regclass('pgmq.q_' || base || '_s') IS NOT NULL
     AND to_regclass('pgmq.q_' || base || '_d_again') IS NOT NULL
     AND to_regclass('pgmq.q_' || base || '_s_again') IS NOT NULL
     AND to_regproc('pbus.fetch_' || base) IS NOT NULL
     AND to_regproc('pbus.put_' || base) IS NOT NULL
     AND (SELECT u.messages FROM pbus.queue_used(its_queue) u) IS NOT NULL
     AND (SELECT count(*) FROM pbus.queue_lock WHERE queue_id = its_queue) = 2;
$$;

-- Makes what a mailbox needs, as far as it is missing.
CREATE OR REPLACE FUNCTION pbus.queue_build(its_queue bigint, base text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE one text;
BEGIN
  FOREACH one IN ARRAY ARRAY[base || '_d', base || '_s'] LOOP
    IF to_regclass('pgmq.q_' || one) IS NULL THEN PERFORM pgmq.create(one); END IF;
    -- Of the rows that were in a queue before: stats do not read all.
    EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON pgmq.%I (msg_id) WHERE headers ? ''t''',
      'q_' || one || '_again', 'q_' || one);
  END LOOP;
  PERFORM pbus.queue_build_fetch(base);
  PERFORM pbus.queue_build_put(base);
  INSERT INTO pbus.queue_lock VALUES (its_queue, 'in'), (its_queue, 'out') ON CONFLICT DO NOTHING;
  INSERT INTO pbus.enqueued_count (queue_id, stored)
    SELECT its_queue, 0 WHERE NOT EXISTS (SELECT FROM pbus.enqueued_count WHERE queue_id = its_queue);
  INSERT INTO pbus.dequeued_count (queue_id, gone)
    SELECT its_queue, 0 WHERE NOT EXISTS (SELECT FROM pbus.dequeued_count WHERE queue_id = its_queue);
  PERFORM pbus.queue_recount(its_queue, base);
END $$;

-- Count again, after rows came or went without us. What is hidden, and by no hold that is known, comes
-- back soon: not at once, since a process may have it in hand and be about to say that it is handled.
CREATE OR REPLACE FUNCTION pbus.queue_recount(its_queue bigint, base text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE one text;
BEGIN
  PERFORM set_config('enable_hashjoin', 'on', true);
  PERFORM pbus.queue_lock_count(its_queue, 'in');  -- no process writes meanwhile
  PERFORM pbus.queue_lock_count(its_queue, 'out');
  EXECUTE format($sql$
    DELETE FROM pbus.in_flight h WHERE h.queue_id = $1 AND NOT EXISTS (
      SELECT FROM (SELECT 'd' AS lane, msg_id FROM pgmq.%1$I
                   UNION ALL SELECT 's', msg_id FROM pgmq.%2$I) q
       WHERE q.lane = h.lane AND q.msg_id = h.msg_id) $sql$,
    'q_' || base || '_d', 'q_' || base || '_s') USING its_queue;
  EXECUTE format($sql$
    UPDATE pbus.dequeued_count o SET
      bytes = i.bytes - (SELECT coalesce(sum(pbus.queue_entry_bytes(headers)), 0) FROM pgmq.%1$I)
                      - (SELECT coalesce(sum(pbus.queue_entry_bytes(headers)), 0) FROM pgmq.%2$I),
      gone = i.stored
        - (SELECT coalesce(sum(pbus.queue_entry_count(headers)), 0) FROM pgmq.%1$I)
        - (SELECT coalesce(sum(pbus.queue_entry_count(headers)), 0) FROM pgmq.%2$I)
        + (SELECT coalesce(sum(cardinality(h.gone)), 0) FROM pbus.in_flight h WHERE h.queue_id = $1)
      FROM pbus.enqueued_count i WHERE o.queue_id = $1 AND i.queue_id = $1 $sql$,
    'q_' || base || '_d', 'q_' || base || '_s') USING its_queue;
  FOREACH one IN ARRAY ARRAY['d', 's'] LOOP
    EXECUTE format($sql$
      UPDATE pgmq.%I q SET vt = clock_timestamp() + interval '5 s'
       WHERE q.vt > clock_timestamp() + interval '5 s' AND q.read_ct > 0 AND NOT EXISTS (
         SELECT FROM pbus.in_flight h WHERE h.queue_id = $1 AND h.lane = $2 AND h.msg_id = q.msg_id) $sql$,
      'q_' || base || '_' || one) USING its_queue, one;
  END LOOP;
END $$;

-- Make again what was dropped of any queue.
CREATE OR REPLACE FUNCTION pbus.queue_repair() RETURNS void LANGUAGE plpgsql AS $$
DECLARE x record;
BEGIN
  FOR x IN SELECT q.id, q.base FROM pbus.queue q ORDER BY q.base LOOP
    PERFORM pg_advisory_xact_lock(hashtextextended(x.base, 0));  -- see queue_open
    CONTINUE WHEN NOT EXISTS (SELECT FROM pbus.queue WHERE id = x.id);
    IF pbus.queue_is_complete(x.id, x.base) THEN
      PERFORM pbus.queue_recount(x.id, x.base);
    ELSE
      PERFORM pbus.queue_build(x.id, x.base);
    END IF;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION pbus.queue_open(
  ch text, who text, keep boolean, share boolean, most bigint, lease_s float8,
  most_bytes bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  its_queue pbus.queue;
  ends timestamptz := clock_timestamp() + lease_s * interval '1 s';
  base text := 'pbus_' || left(md5(length(ch) || ':' || ch || who), 32);
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(base, 0));
  SELECT * INTO its_queue FROM pbus.queue WHERE channel = ch AND name = who;
  IF FOUND AND pbus.queue_is_expired(its_queue) THEN
    PERFORM pbus.queue_remove(its_queue.id);
    its_queue := NULL;
  END IF;
  IF its_queue.id IS NULL THEN
    -- The same name has the same number: what knows it finds it again when all had been dropped.
    INSERT INTO pbus.queue (id, channel, name, base, is_durable, is_shared, max_backlog,
                              max_bytes, ends_at)
      OVERRIDING SYSTEM VALUE VALUES (('x' || right(base, 15))::bit(60)::bigint, ch, who, base, keep,
      share, most, most_bytes, ends) RETURNING * INTO its_queue;
  ELSIF keep OR NOT its_queue.is_durable THEN
    UPDATE pbus.queue SET is_durable = keep, is_shared = share, max_backlog = most, max_bytes = most_bytes,
        ends_at = ends
      WHERE id = its_queue.id;
  END IF;
  IF NOT pbus.queue_is_complete(its_queue.id, base) THEN PERFORM pbus.queue_build(its_queue.id, base); END IF;
END $$;

-- The oldest dead letters fall where there are too many: some more than needed, so that it is seldom.
CREATE OR REPLACE FUNCTION pbus.queue_trim_dead(its_queue bigint, most bigint, most_bytes bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE fallen bigint[] := '{}';
BEGIN
  IF (SELECT count(*) > most OR sum(bytes) > most_bytes FROM pbus.dead_letter WHERE queue_id = its_queue) THEN
    fallen := ARRAY(
      SELECT r.key FROM (
        SELECT key, sum(bytes) OVER w AS upto, row_number() OVER w AS at FROM pbus.dead_letter
         WHERE queue_id = its_queue WINDOW w AS (ORDER BY key DESC)) r
       WHERE r.at > 1 AND (r.at > most - most / 16 OR r.upto > most_bytes - most_bytes / 16));
    DELETE FROM pbus.dead_letter WHERE key = ANY(fallen);
    PERFORM pbus.queue_count_out(its_queue, 0, 0, cardinality(fallen));
  END IF;
  RETURN cardinality(fallen);
END $$;

-- Forgets what was handled long ago, and more; from time to time.
CREATE OR REPLACE FUNCTION pbus.queue_tidy(ch text, kept_s float8, kept bigint, dead_kept bigint,
                                         dead_bytes bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE x record;
BEGIN
  FOR x IN SELECT id FROM pbus.queue WHERE channel = ch ORDER BY id LOOP
    DELETE FROM pbus.handled WHERE queue_id + 0 = x.id AND at <= greatest(
      clock_timestamp() - kept_s * interval '1 s',
      (SELECT at FROM pbus.handled WHERE queue_id + 0 = x.id ORDER BY at DESC OFFSET kept LIMIT 1));
    PERFORM pbus.queue_trim_dead(x.id, dead_kept, dead_bytes);
  END LOOP;
  DELETE FROM pbus.sender_stream WHERE channel = ch
    AND used_at < clock_timestamp() - kept_s * interval '1 s';
END $$;

CREATE OR REPLACE FUNCTION pbus.queue_stats(ch text) RETURNS TABLE (
  name text, backlog bigint, in_flight bigint, oldest_s float8, retries bigint, dead bigint,
  backlog_bytes bigint, dead_fell bigint
) LANGUAGE plpgsql AS $$
DECLARE m record; one record; lane text; first float8; held jsonb;  -- by queue: read once for all
BEGIN
  SELECT coalesce(jsonb_object_agg(f.queue_id, f.messages), '{}') INTO held
    FROM (SELECT i.queue_id, sum(i.size - cardinality(i.gone)) AS messages FROM pbus.in_flight i
           WHERE i.channel = ch GROUP BY i.queue_id) f;
  FOR m IN SELECT b.*, u.messages AS left, u.bytes AS weight, o.fell FROM pbus.queue b
             CROSS JOIN LATERAL (SELECT * FROM pbus.queue_used(b.id) OFFSET 0) u
             CROSS JOIN LATERAL (SELECT * FROM pbus.dequeued_count o WHERE o.queue_id = b.id
                                  ORDER BY o.generation DESC LIMIT 1) o
            WHERE b.channel = ch ORDER BY b.name COLLATE "C" FOR KEY SHARE OF b LOOP
    name := m.name;
    backlog := greatest(m.left, 0);
    backlog_bytes := greatest(m.weight, 0);
    dead_fell := m.fell;
    in_flight := coalesce((held ->> m.id::text)::bigint, 0);
    SELECT count(*) INTO dead FROM pbus.dead_letter d WHERE d.queue_id = m.id;
    retries := 0;
    first := NULL;
    FOREACH lane IN ARRAY ARRAY['_d', '_s'] LOOP
      -- Of rows that came the usual way the first is the oldest; the others have an index of their own.
      EXECUTE format('SELECT least(min(pbus.queue_stored_at(headers, enqueued_at)), (
            SELECT extract(epoch FROM enqueued_at)::float8 FROM pgmq.%1$I
             WHERE (headers ? ''t'') IS NOT TRUE ORDER BY msg_id LIMIT 1)) AS first,
          count(*) FILTER (WHERE headers ? ''a'') AS retries FROM pgmq.%1$I WHERE headers ? ''t''',
          'q_' || m.base || lane) INTO one;
      first := least(first, one.first);
      retries := retries + one.retries;
    END LOOP;
    oldest_s := extract(epoch FROM clock_timestamp()) - first;
    RETURN NEXT;
  END LOOP;
END $$;

-- Remove a queue that holds no message, in flight or not; returns how many it holds.
CREATE OR REPLACE FUNCTION pbus.queue_remove_empty(ch text, who text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE its_queue bigint; backlog bigint;
BEGIN
  SELECT q.id INTO its_queue FROM pbus.queue q WHERE q.channel = ch AND q.name = who FOR UPDATE;
  IF NOT FOUND THEN RETURN 0; END IF;
  PERFORM pbus.queue_lock_count(its_queue, 'in');  -- no process writes meanwhile
  backlog := (SELECT u.messages FROM pbus.queue_used(its_queue) u);
  IF backlog > 0 THEN RETURN backlog; END IF;
  PERFORM pbus.queue_remove(its_queue);
  RETURN 0;
END $$;
