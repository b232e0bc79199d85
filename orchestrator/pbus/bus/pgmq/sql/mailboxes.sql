-- Stored mail. A row of a queue is an entry: a jsonb array of [id, body] pairs, and in its headers
-- n (how many), a (attempt), c (crashes), s (suspect), t (when it was first stored, where its row
-- is a later one) and b (bytes, about). Only entries of one have a, c or t. Others may
-- write rows of any kind into a queue.
--
-- Plans are kept, and may have been made while a table was nearly empty: a join that the planner may
-- turn round can then compare all rows with all. So joins of tables are LATERAL subqueries with OFFSET 0
-- (or a lock), or scalar subqueries, which are done in the order in which they are written, by an
-- index; and UPDATE and DELETE find their rows by = ANY(array), or one by one.

-- How many messages a row is counted as; 0: it is none of ours.
CREATE OR REPLACE FUNCTION pbus.mail_size(heads jsonb) RETURNS int LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN heads->>'n' ~ '^[0-9]{1,6}$' THEN (heads->>'n')::int ELSE 0 END;
$$;

-- How much there is to carry, about: a row of another's making may unfold.
CREATE OR REPLACE FUNCTION pbus.mail_bytes(message jsonb, heads jsonb) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
  SELECT greatest(pg_column_size(message), CASE WHEN heads->>'b' ~ '^[0-9]{1,9}$'
                                                THEN (heads->>'b')::bigint END, 0);
$$;

-- Headers of a new entry.
CREATE OR REPLACE FUNCTION pbus.mail_new_heads(many bigint, bytes int) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
  SELECT jsonb_build_object('n', many, 'b', bytes);
$$;

-- How many bytes a row is counted as; 0: it does not say.
CREATE OR REPLACE FUNCTION pbus.mail_weight(heads jsonb) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN heads->>'b' ~ '^[0-9]{1,9}$' THEN (heads->>'b')::bigint ELSE 0 END;
$$;

-- How many bytes all mailboxes of a channel hold.
CREATE OR REPLACE FUNCTION pbus.mail_channel_bytes(ch text) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT coalesce(sum((SELECT i.bytes FROM pbus.intake i WHERE i.mailbox = m.id)
                    - (SELECT o.bytes FROM pbus.outgo o WHERE o.mailbox = m.id)), 0)::bigint
    FROM pbus.mailbox m WHERE m.channel = ch;
$$;

-- Why a mailbox has no room, as JSON, or NULL; an empty one takes anything. See mail.py, no_room.
CREATE OR REPLACE FUNCTION pbus.mail_no_room(
  ch text, who text, used bigint, need bigint, most bigint, weight bigint, size bigint,
  most_bytes bigint, copies int, coming bigint
) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE total bigint;
BEGIN
  IF used <= 0 THEN RETURN NULL; END IF;
  IF used + need > most THEN RETURN jsonb_build_array('n', who, used, most); END IF;
  IF weight + size > most_bytes THEN RETURN jsonb_build_array('b', who, weight, most_bytes); END IF;
  IF weight + size > most_bytes / 64 THEN
    total := pbus.mail_channel_bytes(ch) + coming;
    IF total + size * copies > most_bytes * 4 THEN
      RETURN jsonb_build_array('c', who, total, most_bytes * 4);
    END IF;
  END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_since(heads jsonb, enqueued timestamptz) RETURNS float8
LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN heads->>'t' ~ '^[0-9]{1,12}([.][0-9]*)?$' THEN (heads->>'t')::float8
              ELSE extract(epoch FROM enqueued)::float8 END;
$$;

-- Headers as a receiver gets them: with the entry's number (i) and its age in seconds (e), too.
CREATE OR REPLACE FUNCTION pbus.mail_heads(heads jsonb, id bigint, enqueued timestamptz) RETURNS text
LANGUAGE sql VOLATILE AS $$
  SELECT (CASE jsonb_typeof(heads) WHEN 'object' THEN heads ELSE '{}' END || jsonb_build_object('i', id,
    'e', extract(epoch FROM clock_timestamp())::float8 - pbus.mail_since(heads, enqueued)))::text;
$$;

CREATE OR REPLACE FUNCTION pbus.bell(ch text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT 'pbus_' || left(md5(ch), 24);
$$;

-- What the bell calls a mailbox.
CREATE OR REPLACE FUNCTION pbus.mail_token(name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT left(md5(name), 8);
$$;

-- One notification a statement: the tokens of the mailboxes, or nothing for all.
CREATE OR REPLACE FUNCTION pbus.mail_ring(ch text, boxes bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE names text;
BEGIN
  SELECT string_agg(pbus.mail_token(name), ' ') INTO names FROM pbus.mailbox WHERE id = ANY(boxes);
  IF names IS NOT NULL THEN
    PERFORM pg_notify(pbus.bell(ch), CASE WHEN length(names) < 7900 THEN names ELSE '' END);
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_remove(box bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  base text; ch text; one text;
BEGIN
  SELECT queue, channel INTO base, ch FROM pbus.mailbox WHERE id = box FOR UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  DELETE FROM pbus.intake WHERE mailbox = box;  -- waits for writers
  DELETE FROM pbus.held WHERE channel = ch AND mailbox = box;
  DELETE FROM pbus.outgo WHERE mailbox = box;
  DELETE FROM pbus.handled WHERE mailbox = box;
  DELETE FROM pbus.dead WHERE mailbox = box;
  DELETE FROM pbus.waiter WHERE mailbox = box;
  DELETE FROM pbus.mailbox WHERE id = box;
  FOREACH one IN ARRAY ARRAY['_d', '_s'] LOOP PERFORM pgmq.drop_queue(base || one); END LOOP;
  EXECUTE format('DROP FUNCTION IF EXISTS pbus.%I, pbus.%I', 'take_' || base, 'put_' || base);
END $$;

-- When a process was last in touch with the channel's mail; missing after a crash of the server.
CREATE UNLOGGED TABLE IF NOT EXISTS pbus.touched (channel text PRIMARY KEY, at timestamptz NOT NULL);

-- Whether a mailbox is to be removed: nobody keeps or touches it, and there is no mail in it, or old.
CREATE OR REPLACE FUNCTION pbus.mail_is_over(box pbus.mailbox) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
  SELECT NOT box.is_kept AND box.ends_at <= clock_timestamp() AND (
    box.ends_at <= clock_timestamp() - interval '10 min' OR NOT EXISTS (
      SELECT FROM pbus.intake i JOIN pbus.outgo o ON o.mailbox = i.mailbox
       WHERE i.mailbox = box.id AND i.stored > o.gone));
$$;

CREATE OR REPLACE FUNCTION pbus.mail_is_whole(box bigint, base text) RETURNS boolean
LANGUAGE sql STABLE AS $$
  SELECT to_regclass('pgmq.q_' || base || '_d') IS NOT NULL
     AND to_regclass('pgmq.q_' || base || '_s') IS NOT NULL
     AND to_regproc('pbus.take_' || base) IS NOT NULL
     AND to_regproc('pbus.put_' || base) IS NOT NULL
     AND EXISTS (SELECT FROM pbus.intake WHERE mailbox = box)
     AND EXISTS (SELECT FROM pbus.outgo WHERE mailbox = box);
$$;

-- Makes what a mailbox needs, as far as it is missing.
CREATE OR REPLACE FUNCTION pbus.mail_build(box bigint, base text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE one text;
BEGIN
  FOREACH one IN ARRAY ARRAY[base || '_d', base || '_s'] LOOP
    IF to_regclass('pgmq.q_' || one) IS NULL THEN PERFORM pgmq.create(one); END IF;
  END LOOP;
  PERFORM pbus.mail_build_take(base);
  PERFORM pbus.mail_build_put(base);
  INSERT INTO pbus.intake VALUES (box, 0) ON CONFLICT DO NOTHING;
  INSERT INTO pbus.outgo VALUES (box, 0) ON CONFLICT DO NOTHING;
  PERFORM pbus.mail_count(box, base);
END $$;

-- Counts anew, after rows came or went without us. What is hidden, and by no hold that is known, comes
-- back soon: not at once, since a process may have it in hand and be about to say that it is handled.
CREATE OR REPLACE FUNCTION pbus.mail_count(box bigint, base text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE one text;
BEGIN
  PERFORM set_config('enable_hashjoin', 'on', true);
  PERFORM FROM pbus.intake WHERE mailbox = box FOR UPDATE;  -- nobody writes meanwhile
  EXECUTE format($sql$
    DELETE FROM pbus.held h WHERE h.mailbox = $1 AND NOT EXISTS (
      SELECT FROM (SELECT 'd' AS lane, msg_id FROM pgmq.%1$I
                   UNION ALL SELECT 's', msg_id FROM pgmq.%2$I) q
       WHERE q.lane = h.lane AND q.msg_id = h.msg_id) $sql$,
    'q_' || base || '_d', 'q_' || base || '_s') USING box;
  EXECUTE format($sql$
    UPDATE pbus.outgo o SET
      bytes = i.bytes - (SELECT coalesce(sum(pbus.mail_weight(headers)), 0) FROM pgmq.%1$I)
                      - (SELECT coalesce(sum(pbus.mail_weight(headers)), 0) FROM pgmq.%2$I),
      gone = i.stored
        - (SELECT coalesce(sum(pbus.mail_size(headers)), 0) FROM pgmq.%1$I)
        - (SELECT coalesce(sum(pbus.mail_size(headers)), 0) FROM pgmq.%2$I)
        + (SELECT coalesce(sum(cardinality(h.gone)), 0) FROM pbus.held h WHERE h.mailbox = $1)
      FROM pbus.intake i WHERE o.mailbox = $1 AND i.mailbox = $1 $sql$,
    'q_' || base || '_d', 'q_' || base || '_s') USING box;
  FOREACH one IN ARRAY ARRAY['d', 's'] LOOP
    EXECUTE format($sql$
      UPDATE pgmq.%I q SET vt = clock_timestamp() + interval '5 s'
       WHERE q.vt > clock_timestamp() + interval '5 s' AND q.read_ct > 0 AND NOT EXISTS (
         SELECT FROM pbus.held h WHERE h.mailbox = $1 AND h.lane = $2 AND h.msg_id = q.msg_id) $sql$,
      'q_' || base || '_' || one) USING box, one;
  END LOOP;
END $$;

-- Makes again what somebody dropped of any mailbox.
CREATE OR REPLACE FUNCTION pbus.mail_mend() RETURNS void LANGUAGE plpgsql AS $$
DECLARE x record;
BEGIN
  FOR x IN SELECT id, queue FROM pbus.mailbox ORDER BY queue LOOP
    PERFORM pg_advisory_xact_lock(hashtextextended(x.queue, 0));  -- see mail_open
    CONTINUE WHEN NOT EXISTS (SELECT FROM pbus.mailbox WHERE id = x.id);
    IF pbus.mail_is_whole(x.id, x.queue) THEN
      PERFORM pbus.mail_count(x.id, x.queue);
    ELSE
      PERFORM pbus.mail_build(x.id, x.queue);
    END IF;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_open(
  ch text, who text, keep boolean, share boolean, most bigint, lease_s float8,
  most_bytes bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  box pbus.mailbox;
  ends timestamptz := clock_timestamp() + lease_s * interval '1 s';
  base text := 'pbus_' || left(md5(length(ch) || ':' || ch || who), 32);
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(base, 0));
  SELECT * INTO box FROM pbus.mailbox WHERE channel = ch AND name = who;
  IF FOUND AND pbus.mail_is_over(box) THEN
    PERFORM pbus.mail_remove(box.id);
    box := NULL;
  END IF;
  IF box.id IS NULL THEN
    -- The same name has the same number: what knows it finds it again when all had been dropped.
    INSERT INTO pbus.mailbox (id, channel, name, queue, is_kept, is_shared, max_backlog,
                              max_bytes, ends_at)
      OVERRIDING SYSTEM VALUE VALUES (('x' || right(base, 15))::bit(60)::bigint, ch, who, base, keep,
      share, most, most_bytes, ends) RETURNING * INTO box;
  ELSIF keep OR NOT box.is_kept THEN
    UPDATE pbus.mailbox SET is_kept = keep, is_shared = share, max_backlog = most, max_bytes = most_bytes,
        ends_at = ends
      WHERE id = box.id;
  END IF;
  IF NOT pbus.mail_is_whole(box.id, base) THEN PERFORM pbus.mail_build(box.id, base); END IF;
END $$;

-- The oldest dead letters fall where there are too many: some more than needed, so that it is seldom.
CREATE OR REPLACE FUNCTION pbus.mail_dead_trim(box bigint, most bigint, most_bytes bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE fallen bigint[] := '{}';
BEGIN
  IF (SELECT count(*) > most OR sum(bytes) > most_bytes FROM pbus.dead WHERE mailbox = box) THEN
    fallen := ARRAY(
      SELECT r.key FROM (
        SELECT key, sum(bytes) OVER w AS upto, row_number() OVER w AS at FROM pbus.dead
         WHERE mailbox = box WINDOW w AS (ORDER BY key DESC)) r
       WHERE r.at > 1 AND (r.at > most - most / 16 OR r.upto > most_bytes - most_bytes / 16));
    DELETE FROM pbus.dead WHERE key = ANY(fallen);
    UPDATE pbus.outgo SET fell = fell + cardinality(fallen) WHERE mailbox = box;
  END IF;
  RETURN cardinality(fallen);
END $$;

-- Forgets what was handled long ago, and more; from time to time.
CREATE OR REPLACE FUNCTION pbus.mail_tidy(ch text, kept_s float8, kept bigint, dead_kept bigint,
                                         dead_bytes bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE x record;
BEGIN
  FOR x IN SELECT id FROM pbus.mailbox WHERE channel = ch ORDER BY id LOOP
    DELETE FROM pbus.handled WHERE mailbox + 0 = x.id AND at <= greatest(
      clock_timestamp() - kept_s * interval '1 s',
      (SELECT at FROM pbus.handled WHERE mailbox + 0 = x.id ORDER BY at DESC OFFSET kept LIMIT 1));
    PERFORM pbus.mail_dead_trim(x.id, dead_kept, dead_bytes);
  END LOOP;
  DELETE FROM pbus.stream WHERE channel = ch
    AND used_at < clock_timestamp() - kept_s * interval '1 s';
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_reports(ch text) RETURNS TABLE (
  name text, backlog bigint, in_flight bigint, oldest_s float8, retries bigint, dead bigint,
  backlog_bytes bigint, dead_fell bigint
) LANGUAGE plpgsql AS $$
DECLARE m record; one record; lane text; first float8;
BEGIN
  FOR m IN SELECT b.*, i.stored - o.gone AS left, i.bytes - o.bytes AS weight, o.fell FROM pbus.mailbox b
             CROSS JOIN LATERAL (SELECT * FROM pbus.intake i WHERE i.mailbox = b.id OFFSET 0) i
             CROSS JOIN LATERAL (SELECT * FROM pbus.outgo o WHERE o.mailbox = b.id OFFSET 0) o
            WHERE b.channel = ch ORDER BY b.name COLLATE "C" FOR KEY SHARE OF b LOOP
    name := m.name;
    backlog := greatest(m.left, 0);
    backlog_bytes := greatest(m.weight, 0);
    dead_fell := m.fell;
    SELECT coalesce(sum(size - cardinality(gone)), 0) INTO in_flight FROM pbus.held WHERE channel = ch AND mailbox = m.id;
    SELECT count(*) INTO dead FROM pbus.dead d WHERE d.mailbox = m.id;
    retries := 0;
    first := NULL;
    FOREACH lane IN ARRAY ARRAY['_d', '_s'] LOOP
      EXECUTE format('SELECT min(pbus.mail_since(headers, enqueued_at)) AS first, count(*) FILTER (WHERE headers ? ''a'') AS retries FROM pgmq.%I', 'q_' || m.queue || lane) INTO one;
      first := least(first, one.first);
      retries := retries + one.retries;
    END LOOP;
    oldest_s := extract(epoch FROM clock_timestamp()) - first;
    RETURN NEXT;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_purge(ch text, who text, remove boolean) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE box pbus.mailbox; one text; n bigint; total bigint := 0; load bigint; weight bigint := 0;
BEGIN
  SELECT * INTO box FROM pbus.mailbox WHERE channel = ch AND name = who FOR KEY SHARE;
  IF NOT FOUND THEN RETURN 0; END IF;
  FOREACH one IN ARRAY ARRAY['d', 's'] LOOP
    EXECUTE format('WITH gone AS (
        DELETE FROM pgmq.%I q WHERE NOT msg_id = ANY(ARRAY(
          SELECT h.msg_id FROM pbus.held h WHERE h.channel = $3 AND h.mailbox = $1 AND h.lane = $2))
        RETURNING pbus.mail_size(headers) AS n, pbus.mail_weight(headers) AS size)
      SELECT coalesce(sum(n), 0), coalesce(sum(size), 0) FROM gone', 'q_' || box.queue || '_' || one)
      INTO n, load USING box.id, one, ch;
    total := total + n;
    weight := weight + load;
  END LOOP;
  UPDATE pbus.outgo SET gone = gone + total, bytes = bytes + weight WHERE mailbox = box.id;
  IF remove THEN PERFORM pbus.mail_remove(box.id); END IF;
  RETURN total;
END $$;
