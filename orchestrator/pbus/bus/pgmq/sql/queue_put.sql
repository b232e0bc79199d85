-- s_: the senders' streams of this batch; e_: its entries, each of one stream.
CREATE OR REPLACE FUNCTION pbus.queue_put(
  ch text, s_sender text[], s_stream bigint[], s_address text[], s_lane text[],
  e_stream int[], e_first bigint[], e_size int[], e_message text[]
) RETURNS TABLE (mailboxes int, is_full boolean, why text) LANGUAGE plpgsql AS $$
DECLARE
  to_all boolean := '*' = ANY(s_address);
  queue_ids bigint[]; queues text[]; names text[]; shared boolean[]; used bigint[]; most bigint[];
  weight bigint[]; heavy bigint[]; most_bytes bigint[]; load int; loads int[]; coming bigint := 0;
  box_of int[]; last bigint[]; generations bigint[]; skip bigint; need bigint; s int; b int; l int;
  all_refused boolean[] := '{f,f}';  -- of this lane: a broadcast
  any_refused boolean[] := '{f,f}';  -- of this lane: anything
  refused boolean[];                 -- of this mailbox and lane
  added bigint[]; filled bigint[]; count_all int; first_new int[]; seen int[] := '{}';
  is_followed boolean := EXISTS (SELECT FROM pbus.peer WHERE channel = ch AND is_follower);
  target record;
BEGIN
  SELECT coalesce(array_agg(x.id), '{}'), array_agg(x.base), array_agg(x.name),
         array_agg(x.is_shared), array_agg(x.max_backlog), array_agg(x.max_bytes)
    INTO queue_ids, queues, names, shared, most, most_bytes
    FROM (SELECT m.id, m.base, m.name, m.is_shared, m.max_backlog, m.max_bytes
            FROM (SELECT * FROM pbus.queue b WHERE b.channel = ch AND (to_all OR b.name = ANY(s_address))
                   ORDER BY b.id OFFSET 0) m
            CROSS JOIN LATERAL (
              SELECT FROM pbus.queue_lock l WHERE l.queue_id = m.id AND l.side = 'in' FOR UPDATE) l) x;
  SELECT array_agg(coalesce(u.messages, 0) ORDER BY q.n), array_agg(coalesce(u.bytes, 0) ORDER BY q.n)
    INTO used, weight
    FROM unnest(queue_ids) WITH ORDINALITY q(id, n) CROSS JOIN LATERAL pbus.queue_used(q.id) u;
  SELECT array_agg(array_position(names, w.address) ORDER BY w.n),
         array_agg(coalesce(t.last, 0) ORDER BY w.n),
         array_agg(coalesce(t.generation + t.updates / 200, 0) ORDER BY w.n)
    INTO box_of, last, generations
    FROM unnest(s_sender, s_stream, s_address, s_lane) WITH ORDINALITY w(sender, stream, address, lane, n)
    LEFT JOIN LATERAL (
      SELECT * FROM pbus.sender_stream t
       WHERE t.channel = ch AND t.sender = w.sender AND t.stream = w.stream
         AND t.address = w.address AND t.lane = w.lane ORDER BY t.generation DESC LIMIT 1) t ON true;
  count_all := (SELECT count(*) FROM unnest(shared) x WHERE NOT x);
  refused := array_fill(false, ARRAY[greatest(2 * cardinality(queue_ids), 1)]);
  added := array_fill(0::bigint, ARRAY[greatest(cardinality(queue_ids), 1)]);
  heavy := added;
  -- Text at a place of an array is found by counting from its start: not for each of thousands.
  loads := ARRAY(SELECT octet_length(e.text) FROM unnest(e_message) WITH ORDINALITY e(text, n) ORDER BY n);
  first_new := array_fill(NULL::int, ARRAY[cardinality(e_stream)]);

  FOR i IN 1 .. cardinality(e_stream) LOOP
    s := e_stream[i];
    l := CASE s_lane[s] WHEN 'd' THEN 1 ELSE 2 END;
    b := box_of[s];
    skip := greatest(last[s] - e_first[i] + 1, 0);
    need := e_size[i] - skip;
    load := loads[i];
    is_full := false;
    why := NULL;
    IF s_address[s] = '*' THEN
      mailboxes := count_all;
      IF need > 0 AND count_all > 0 THEN
        IF NOT any_refused[l] THEN
          SELECT w INTO why
            FROM unnest(names, used, added, most, weight, heavy, most_bytes, shared)
                   x(name, used, added, most, weight, heavy, most_bytes, shared)
            CROSS JOIN LATERAL pbus.queue_full_reason(
              ch, x.name, x.used + x.added, need, x.most, x.weight + x.heavy, load, x.most_bytes,
              count_all, coming) w
           WHERE NOT x.shared AND (x.used + x.added + need > x.most
                                   OR x.weight + x.heavy + load > x.most_bytes / 64)
             AND w IS NOT NULL LIMIT 1;
        END IF;
        is_full := any_refused[l] OR why IS NOT NULL;
        IF is_full THEN
          all_refused[l] := true;
        ELSE
          FOR j IN 1 .. cardinality(queue_ids) LOOP
            IF NOT shared[j] THEN
              added[j] := added[j] + need;
              heavy[j] := heavy[j] + load;
            END IF;
          END LOOP;
          coming := coming + load * count_all;
        END IF;
      END IF;
    ELSE
      mailboxes := CASE WHEN b IS NULL THEN 0 ELSE 1 END;
      IF need > 0 AND b IS NOT NULL THEN
        is_full := all_refused[l] OR refused[2 * b - l + 1];
        IF NOT is_full AND (used[b] + added[b] + need > most[b]
                            OR weight[b] + heavy[b] + load > most_bytes[b] / 64) THEN
          why := pbus.queue_full_reason(ch, names[b], used[b] + added[b], need, most[b],
                                   weight[b] + heavy[b], load, most_bytes[b], 1, coming);
          is_full := why IS NOT NULL;
        END IF;
        IF is_full THEN
          refused[2 * b - l + 1] := true;
        ELSE
          added[b] := added[b] + need;
          heavy[b] := heavy[b] + load;
          coming := coming + load;
        END IF;
      END IF;
    END IF;
    IF is_full THEN
      any_refused[l] := true;
      mailboxes := 0;
    ELSIF need > 0 AND mailboxes > 0 THEN
      last[s] := e_first[i] + e_size[i] - 1;
      first_new[i] := skip;
    END IF;
    IF is_followed AND need > 0 AND NOT is_full THEN seen := seen || i; END IF;
    RETURN NEXT;
  END LOOP;

  FOR target IN
    WITH entry AS MATERIALIZED (
      SELECT e.n, e.stream, CASE e.skip WHEN 0 THEN e.message::jsonb ELSE (
               SELECT jsonb_agg(v ORDER BY at) FROM jsonb_array_elements(e.message::jsonb)
                 WITH ORDINALITY p(v, at) WHERE at > e.skip) END AS message,
             pbus.queue_new_headers(e.size - e.skip, octet_length(e.message)) AS headers
        FROM unnest(e_stream, first_new, e_size, e_message) WITH ORDINALITY
          e(stream, skip, size, message, n)
       WHERE e.skip IS NOT NULL)
    SELECT queues[x.b] || '_' || s_lane[x.stream] AS queue,
           array_agg(x.message ORDER BY x.n) AS messages, array_agg(x.headers ORDER BY x.n) AS headers
      FROM (SELECT e.*, box_of[e.stream] AS b FROM entry e WHERE s_address[e.stream] <> '*'
            UNION ALL
            SELECT e.*, j FROM entry e, generate_subscripts(queue_ids, 1) j
             WHERE s_address[e.stream] = '*' AND NOT shared[j]) x
     GROUP BY 1
  LOOP
    PERFORM pgmq.send_batch(target.queue, target.messages, target.headers);
  END LOOP;
  IF seen <> '{}' THEN
    PERFORM pbus.stream_show(ch, array_agg(s_sender[e_stream[n]] ORDER BY n),
      array_agg(s_stream[e_stream[n]] ORDER BY n), array_agg(s_lane[e_stream[n]] ORDER BY n),
      array_agg(s_address[e_stream[n]] ORDER BY n), array_agg(e_first[n] ORDER BY n),
      array_agg(e_message[n] ORDER BY n)) FROM unnest(seen) n;
  END IF;
  filled := ARRAY(SELECT x.its_queue FROM unnest(queue_ids, added) x(its_queue, added) WHERE x.added > 0);
  IF filled = '{}' THEN RETURN; END IF;
  FOR j IN 1 .. cardinality(queue_ids) LOOP
    IF added[j] > 0 THEN
      PERFORM pbus.queue_count_in(queue_ids[j], added[j], heavy[j]);
    END IF;
  END LOOP;
  INSERT INTO pbus.sender_stream AS t (channel, sender, stream, address, lane, last, used_at, generation)
    SELECT ch, w.sender, w.stream, w.address, w.lane, w.last, clock_timestamp(), w.generation
      FROM unnest(s_sender, s_stream, s_address, s_lane, last, generations)
             w(sender, stream, address, lane, last, generation)
     WHERE w.last > 0 ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (channel, sender, stream, address, lane, generation)
      DO UPDATE SET last = excluded.last, used_at = excluded.used_at, updates = t.updates + 1;
  PERFORM pbus.queue_notify(ch, filled);
END $$;
