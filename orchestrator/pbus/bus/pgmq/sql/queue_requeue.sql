-- Back into the queue: at its old place, except what had started, which comes alone from now on.
CREATE OR REPLACE FUNCTION pbus.queue_requeue(ch text, holds bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  h record; q record; messages jsonb; headers jsonb; crashed int[]; rest int[]; total bigint := 0;
  queue_ids bigint[]; plain bigint[]; since float8; stays bigint; load int;
BEGIN
  PERFORM FROM pbus.in_flight WHERE hold = ANY(holds) ORDER BY hold FOR UPDATE;
  SELECT coalesce(sum(size - cardinality(gone)), 0), array_agg(DISTINCT queue_id),
         array_agg(hold) FILTER (WHERE gone = '{}' AND started = '{}')
    INTO total, queue_ids, plain FROM pbus.in_flight WHERE hold = ANY(holds);
  FOR q IN
    SELECT m.base || '_' || d.lane AS name, d.ids
      FROM (SELECT queue_id, lane, array_agg(msg_id) AS ids FROM pbus.in_flight WHERE hold = ANY(plain) GROUP BY 1, 2) d
      CROSS JOIN LATERAL (SELECT * FROM pbus.queue m WHERE m.id = d.queue_id OFFSET 0) m
  LOOP
    EXECUTE format('UPDATE pgmq.%I SET vt = clock_timestamp(), headers = CASE jsonb_typeof(headers) WHEN ''object'' THEN headers || ''{"s": true}'' ELSE headers END WHERE msg_id = ANY($1)', 'q_' || q.name) USING q.ids;
  END LOOP;
  FOR h IN
    SELECT d.*, m.base || '_' || d.lane AS queue FROM pbus.in_flight d
      CROSS JOIN LATERAL (SELECT * FROM pbus.queue m WHERE m.id = d.queue_id OFFSET 0) m
     WHERE d.hold = ANY(holds) AND NOT (d.gone = '{}' AND d.started = '{}') ORDER BY d.queue_id, d.lane, d.msg_id
  LOOP
    EXECUTE format('SELECT message, headers, pbus.queue_stored_at(headers, enqueued_at) FROM pgmq.%I WHERE msg_id = $1', 'q_' || h.queue)
      INTO messages, headers, since USING h.msg_id;
    CONTINUE WHEN messages IS NULL;
    SELECT coalesce(array_agg(p) FILTER (WHERE p = ANY(h.started)), '{}'),
           coalesce(array_agg(p) FILTER (WHERE NOT p = ANY(h.started)), '{}')
      INTO crashed, rest FROM generate_series(0, h.size - 1) p WHERE NOT p = ANY(h.gone);
    headers := headers || '{"s": true}';
    IF h.size = 1 AND cardinality(crashed) = 1 THEN
      headers := headers || jsonb_build_object('c', coalesce((headers->>'c')::int, 0) + 1);
      rest := crashed;
      crashed := '{}';
    END IF;
    stays := 0;
    FOR i IN 1 .. cardinality(crashed) LOOP
      load := octet_length((messages->crashed[i])::text);
      stays := stays + load;
      PERFORM pgmq.send(h.queue, jsonb_build_array(messages->crashed[i]),
        headers || jsonb_build_object('n', 1, 'b', load, 't', since, 'c', coalesce((headers->>'c')::int, 0) + 1));
    END LOOP;
    IF rest = '{}' THEN
      PERFORM pgmq.delete(h.queue, h.msg_id);
    ELSE
      messages := (SELECT jsonb_agg(messages->p ORDER BY p) FROM unnest(rest) p);
      load := octet_length(messages::text);
      stays := stays + load;
      EXECUTE format('UPDATE pgmq.%I SET vt = clock_timestamp(), headers = $2, message = $3 WHERE msg_id = $1', 'q_' || h.queue)
        USING h.msg_id, headers || jsonb_build_object('n', cardinality(rest), 'b', load), messages;
    END IF;
    PERFORM pbus.queue_count_out(h.queue_id, 0, (h.bytes - stays)::bigint);
  END LOOP;
  DELETE FROM pbus.in_flight WHERE hold = ANY(holds);
  PERFORM pbus.queue_notify(ch, queue_ids);
  RETURN total;
END $$;

CREATE OR REPLACE FUNCTION pbus.queue_requeue_held_by(ch text, prefixes text[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE dead text[];
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('pbus consumers ' || ch, 0));  -- for first takes
  INSERT INTO pbus.consumer
    SELECT ch, p, clock_timestamp(), true FROM unnest(prefixes) p ORDER BY p ON CONFLICT DO NOTHING;
  PERFORM pbus.stream_forget(ch, prefixes);
  -- A take of theirs that is under way has locked its holder: it ends first, and is seen below.
  SELECT array_agg(x.name) INTO dead FROM (
    SELECT name FROM pbus.consumer
     WHERE channel = ch AND EXISTS (SELECT FROM unnest(prefixes) p WHERE starts_with(name, p))
     ORDER BY name FOR UPDATE) x;
  UPDATE pbus.consumer SET is_dead = true, ends_at = clock_timestamp() + interval '10 min'
    WHERE channel = ch AND name = ANY(dead);
  RETURN pbus.queue_requeue(ch, ARRAY(
    SELECT hold FROM pbus.in_flight WHERE channel = ch AND consumer = ANY(dead)));
END $$;

-- Renews what is ours, removes what ran out; returns the mailboxes that are not there, or not whole.
-- held: the entries of the holders; NULL: they may have some that they do not know of.
CREATE OR REPLACE FUNCTION pbus.queue_renew(
  ch text, names text[], holders text[], held bigint[], lease_s float8, hold_s float8
) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE x record; was_away boolean; is_empty boolean;
BEGIN
  -- No process was in touch: the server was away, and they come back.
  SELECT NOT EXISTS (SELECT FROM pbus.last_renewal
    WHERE channel = ch AND at > clock_timestamp() - interval '5 s') INTO was_away;
  FOR x IN SELECT m.id, m.ends_at, pbus.queue_is_expired(m) AS is_over FROM pbus.queue m
            WHERE channel = ch AND NOT is_durable AND ends_at <= clock_timestamp()
            ORDER BY id FOR UPDATE SKIP LOCKED LOOP
    IF was_away THEN
      UPDATE pbus.queue SET ends_at = clock_timestamp() + interval '10 s' WHERE id = x.id;
    ELSIF x.is_over THEN
      PERFORM pbus.queue_remove(x.id);
    END IF;
  END LOOP;
  UPDATE pbus.queue SET ends_at = clock_timestamp() + lease_s * interval '1 s'
    WHERE channel = ch AND name = ANY(names) AND NOT is_durable;
  UPDATE pbus.consumer SET ends_at = clock_timestamp() + hold_s * interval '1 s'
    WHERE channel = ch AND name = ANY(holders) AND NOT is_dead;
  UPDATE pbus.push_consumer SET ends_at = clock_timestamp() + hold_s * interval '1 s'
    WHERE channel = ch AND consumer = ANY(holders);
  IF held IS NULL THEN
    held := ARRAY(SELECT hold FROM pbus.in_flight WHERE channel = ch AND consumer = ANY(holders));
  END IF;
  FOR x IN
    WITH old AS (
      UPDATE pbus.in_flight SET held_at = clock_timestamp()
       WHERE hold = ANY(held) AND consumer = ANY(holders)
         AND held_at < clock_timestamp() - hold_s / 2 * interval '1 s'
      RETURNING queue_id, lane, msg_id)
    SELECT m.base || '_' || o.lane AS queue, o.ids
      FROM (SELECT queue_id, lane, array_agg(msg_id) AS ids FROM old GROUP BY 1, 2) o
      CROSS JOIN LATERAL (SELECT * FROM pbus.queue m WHERE m.id = o.queue_id OFFSET 0) m
  LOOP
    PERFORM pgmq.set_vt(x.queue, x.ids, clock_timestamp() + hold_s * interval '2 s');
  END LOOP;
  FOR x IN SELECT m.id, m.base FROM pbus.queue m
             CROSS JOIN LATERAL (SELECT * FROM pbus.queue_used(m.id) OFFSET 0) u
            WHERE m.channel = ch AND m.name = ANY(names) AND (u.messages <> 0 OR u.bytes <> 0)
            ORDER BY m.id
  LOOP
    -- Nothing is left of what should be: the queues were purged from outside.
    EXECUTE format('SELECT NOT EXISTS (SELECT FROM pgmq.%I) AND NOT EXISTS (SELECT FROM pgmq.%I)',
      'q_' || x.base || '_d', 'q_' || x.base || '_s') INTO is_empty;
    IF is_empty THEN PERFORM pbus.queue_recount(x.id, x.base); END IF;
  END LOOP;
  FOR x IN SELECT name, is_dead FROM pbus.consumer
            WHERE channel = ch AND ends_at <= clock_timestamp() ORDER BY name FOR UPDATE SKIP LOCKED
  LOOP
    IF x.is_dead THEN
      DELETE FROM pbus.consumer WHERE channel = ch AND name = x.name;
    ELSE
      PERFORM pbus.queue_requeue_consumer(ch, x.name);
    END IF;
  END LOOP;
  INSERT INTO pbus.last_renewal VALUES (ch, clock_timestamp()) ON CONFLICT (channel)
    DO UPDATE SET at = excluded.at WHERE last_renewal.at < excluded.at - interval '1 s';
  RETURN QUERY SELECT n FROM unnest(names) n
    WHERE (SELECT pbus.queue_is_complete(m.id, m.base) FROM pbus.queue m
            WHERE m.channel = ch AND m.name = n) IS NOT TRUE;
END $$;

CREATE OR REPLACE FUNCTION pbus.queue_requeue_consumer(ch text, who text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  UPDATE pbus.consumer SET is_dead = true, ends_at = clock_timestamp() + interval '10 min'
    WHERE channel = ch AND name = who;
  PERFORM pbus.queue_requeue(ch, ARRAY(
    SELECT hold FROM pbus.in_flight WHERE channel = ch AND consumer = who));
END $$;
