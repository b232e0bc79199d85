-- queue_put for one entry to one mailbox, which is what a lone sender has: less than half the work.
CREATE OR REPLACE FUNCTION pbus.queue_put_one(
  ch text, who text, its_stream bigint, dest text, its_lane text, first_ bigint, size_ int,
  entry text, OUT mailboxes int, OUT is_full boolean, OUT why text
) LANGUAGE plpgsql AS $$
DECLARE its_queue record; had bigint; skip bigint; need bigint; messages jsonb; headers jsonb;
  load int; is_handed boolean;
BEGIN
  SELECT m.id, m.base, m.max_backlog, m.max_bytes, m.is_shared, i.stored AS used, i.bytes AS weight,
         (SELECT ARRAY[o.gone, o.bytes] FROM pbus.dequeued_count o WHERE o.queue_id = m.id) AS out INTO its_queue
    FROM pbus.queue m
    CROSS JOIN LATERAL (SELECT * FROM pbus.enqueued_count i WHERE i.queue_id = m.id FOR UPDATE) i
   WHERE m.channel = ch AND m.name = dest;
  mailboxes := CASE WHEN FOUND THEN 1 ELSE 0 END;
  its_queue.used := its_queue.used - its_queue.out[1];
  its_queue.weight := its_queue.weight - its_queue.out[2];
  load := octet_length(entry);
  SELECT last INTO had FROM pbus.sender_stream
   WHERE channel = ch AND sender = who AND stream = its_stream AND address = dest AND lane = its_lane;
  skip := greatest(coalesce(had, 0) - first_ + 1, 0);
  need := size_ - skip;
  IF mailboxes = 1 AND need > 0 AND (
    its_queue.used + need > its_queue.max_backlog OR its_queue.weight + load > its_queue.max_bytes / 64) THEN
    why := pbus.queue_full_reason(ch, dest, its_queue.used, need, its_queue.max_backlog, its_queue.weight, load,
                             its_queue.max_bytes, 1, 0);
  END IF;
  is_full := why IS NOT NULL;
  IF is_full THEN mailboxes := 0; END IF;
  IF is_full OR need <= 0 THEN RETURN; END IF;
  IF EXISTS (SELECT FROM pbus.peer WHERE channel = ch AND is_follower) THEN
    PERFORM pbus.stream_show(ch, ARRAY[who], ARRAY[its_stream], ARRAY[its_lane], ARRAY[dest],
                           ARRAY[first_], ARRAY[entry]);
  END IF;
  IF mailboxes = 0 THEN RETURN; END IF;
  messages := entry;
  IF skip > 0 THEN
    messages := (SELECT jsonb_agg(v ORDER BY at) FROM jsonb_array_elements(messages)
                  WITH ORDINALITY p(v, at) WHERE at > skip);
  END IF;
  headers := pbus.queue_new_headers(need, load);
  is_handed := its_queue.used < 100 AND NOT its_queue.is_shared AND load < 7900
    AND pbus.queue_push(ch, its_queue.id, its_queue.base, dest, its_lane, messages, headers, its_queue.used);
  IF NOT is_handed THEN
    EXECUTE format('SELECT pbus.%I($1, $2, $3, 0)', 'put_' || its_queue.base)
      USING its_lane, messages, headers;
    PERFORM pg_notify(pbus.notify_channel(ch), pbus.queue_token(dest));
  END IF;
  UPDATE pbus.enqueued_count SET stored = stored + need, bytes = bytes + load WHERE queue_id = its_queue.id;
  INSERT INTO pbus.sender_stream AS t
    VALUES (ch, who, its_stream, dest, its_lane, first_ + size_ - 1, clock_timestamp())
    ON CONFLICT (channel, sender, stream, address, lane)
      DO UPDATE SET last = excluded.last, used_at = excluded.used_at;
END $$;
