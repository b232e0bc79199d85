-- mail_put for one entry to one mailbox, which is what a lone sender has: less than half the work.
CREATE OR REPLACE FUNCTION pbus.mail_put_one(
  ch text, who text, its_stream bigint, dest text, its_lane text, first_ bigint, size_ int,
  entry text, OUT mailboxes int, OUT is_full boolean, OUT why text
) LANGUAGE plpgsql AS $$
DECLARE box record; had bigint; skip bigint; need bigint; letters jsonb; heads jsonb;
  load int; is_handed boolean;
BEGIN
  SELECT m.id, m.queue, m.max_backlog, m.max_bytes, m.is_shared, i.stored AS used, i.bytes AS weight,
         (SELECT ARRAY[o.gone, o.bytes] FROM pbus.outgo o WHERE o.mailbox = m.id) AS out INTO box
    FROM pbus.mailbox m
    CROSS JOIN LATERAL (SELECT * FROM pbus.intake i WHERE i.mailbox = m.id FOR UPDATE) i
   WHERE m.channel = ch AND m.name = dest;
  mailboxes := CASE WHEN FOUND THEN 1 ELSE 0 END;
  box.used := box.used - box.out[1];
  box.weight := box.weight - box.out[2];
  load := octet_length(entry);
  SELECT last INTO had FROM pbus.stream
   WHERE channel = ch AND sender = who AND stream = its_stream AND address = dest AND lane = its_lane;
  skip := greatest(coalesce(had, 0) - first_ + 1, 0);
  need := size_ - skip;
  IF mailboxes = 1 AND need > 0 AND (
    box.used + need > box.max_backlog OR box.weight + load > box.max_bytes / 64) THEN
    why := pbus.mail_no_room(ch, dest, box.used, need, box.max_backlog, box.weight, load,
                             box.max_bytes, 1, 0);
  END IF;
  is_full := why IS NOT NULL;
  IF is_full THEN mailboxes := 0; END IF;
  IF is_full OR need <= 0 THEN RETURN; END IF;
  IF EXISTS (SELECT FROM pbus.peer WHERE channel = ch AND is_follower) THEN
    PERFORM pbus.wire_show(ch, ARRAY[who], ARRAY[its_stream], ARRAY[its_lane], ARRAY[dest],
                           ARRAY[first_], ARRAY[entry]);
  END IF;
  IF mailboxes = 0 THEN RETURN; END IF;
  letters := entry;
  IF skip > 0 THEN
    letters := (SELECT jsonb_agg(v ORDER BY at) FROM jsonb_array_elements(letters)
                  WITH ORDINALITY p(v, at) WHERE at > skip);
  END IF;
  heads := pbus.mail_new_heads(need, load);
  is_handed := box.used < 100 AND NOT box.is_shared AND load < 7900
    AND pbus.mail_hand(ch, box.id, box.queue, dest, its_lane, letters, heads, box.used);
  IF NOT is_handed THEN
    EXECUTE format('SELECT pbus.%I($1, $2, $3, 0)', 'put_' || box.queue)
      USING its_lane, letters, heads;
    PERFORM pg_notify(pbus.bell(ch), pbus.mail_token(dest));
  END IF;
  UPDATE pbus.intake SET stored = stored + need, bytes = bytes + load WHERE mailbox = box.id;
  INSERT INTO pbus.stream AS t
    VALUES (ch, who, its_stream, dest, its_lane, first_ + size_ - 1, clock_timestamp())
    ON CONFLICT (channel, sender, stream, address, lane)
      DO UPDATE SET last = excluded.last, used_at = excluded.used_at;
END $$;
