-- queue_put for one entry to one mailbox, which is what a lone sender has: less than half the work.
CREATE OR REPLACE FUNCTION pbus.queue_put_one(
  ch text, who text, its_stream bigint, dest text, its_lane text, first_ bigint, size_ int,
  entry text, OUT mailboxes int, OUT is_full boolean, OUT why text
) LANGUAGE plpgsql AS $$
DECLARE its_queue record; had record; skip bigint; need bigint; messages jsonb; headers jsonb;
  load int; is_handed boolean; now_used record;
BEGIN
  SELECT m.id, m.base, m.max_backlog, m.max_bytes, m.is_shared INTO its_queue
    FROM pbus.queue m
    CROSS JOIN LATERAL (
      SELECT FROM pbus.queue_lock l WHERE l.queue_id = m.id AND l.side = 'in' FOR UPDATE) l
   WHERE m.channel = ch AND m.name = dest;
  mailboxes := CASE WHEN FOUND THEN 1 ELSE 0 END;
  SELECT u.messages, u.bytes INTO now_used FROM pbus.queue_used(its_queue.id) u;
  load := octet_length(entry);
  SELECT t.last, t.generation, t.updates INTO had FROM pbus.sender_stream t
   WHERE t.channel = ch AND t.sender = who AND t.stream = its_stream AND t.address = dest
     AND t.lane = its_lane ORDER BY t.generation DESC LIMIT 1;
  skip := greatest(coalesce(had.last, 0) - first_ + 1, 0);
  need := size_ - skip;
  IF mailboxes = 1 AND need > 0 AND (
    now_used.messages + need > its_queue.max_backlog OR now_used.bytes + load > its_queue.max_bytes / 64) THEN
    why := pbus.queue_full_reason(ch, dest, now_used.messages, need, its_queue.max_backlog, now_used.bytes, load,
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
  is_handed := now_used.messages < 100 AND NOT its_queue.is_shared AND load < 7900
    AND pbus.queue_push(ch, its_queue.id, its_queue.base, dest, its_lane, messages, headers, now_used.messages);
  IF NOT is_handed THEN
    EXECUTE format('SELECT pbus.%I($1, $2, $3, 0)', 'put_' || its_queue.base)
      USING its_lane, messages, headers;
    PERFORM pg_notify(pbus.notify_channel(ch), pbus.queue_token(dest));
  END IF;
  PERFORM pbus.queue_count_in(its_queue.id, need, load);
  INSERT INTO pbus.sender_stream AS t (channel, sender, stream, address, lane, last, used_at, generation)
    VALUES (ch, who, its_stream, dest, its_lane, first_ + size_ - 1, clock_timestamp(),
            coalesce(had.generation + had.updates / 200, 0))
    ON CONFLICT (channel, sender, stream, address, lane, generation)
      DO UPDATE SET last = excluded.last, used_at = excluded.used_at, updates = t.updates + 1;
END $$;
