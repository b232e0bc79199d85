-- Stored mail. A row of a queue is an entry: a jsonb array of [id, body] pairs, and in its headers
-- n (how many), a (attempt), c (crashes) and s (suspect). Only entries of one have a or c.

CREATE OR REPLACE FUNCTION pbus.bell(ch text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT 'pbus_' || left(md5(ch), 24);
$$;

-- One notification a statement: the first characters of the names' hashes, or nothing for all.
CREATE OR REPLACE FUNCTION pbus.mail_ring(ch text, boxes bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE names text;
BEGIN
  SELECT string_agg(left(md5(name), 8), ' ') INTO names FROM pbus.mailbox WHERE id = ANY(boxes);
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
  DELETE FROM pbus.mailbox WHERE id = box;
  FOREACH one IN ARRAY ARRAY['_d', '_s'] LOOP PERFORM pgmq.drop_queue(base || one); END LOOP;
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_open(
  ch text, who text, keep boolean, share boolean, most bigint, lease_s float8
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  box pbus.mailbox;
  ends timestamptz := clock_timestamp() + lease_s * interval '1 s';
  base text := 'pbus_' || left(md5(length(ch) || ':' || ch || who), 32);
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(base, 0));
  SELECT * INTO box FROM pbus.mailbox WHERE channel = ch AND name = who;
  IF FOUND AND NOT box.is_kept AND box.ends_at <= clock_timestamp() THEN
    PERFORM pbus.mail_remove(box.id);
    box := NULL;
  END IF;
  IF box.id IS NULL THEN
    PERFORM pgmq.create(base || '_d');
    PERFORM pgmq.create(base || '_s');
    INSERT INTO pbus.mailbox (channel, name, queue, is_kept, is_shared, max_backlog, ends_at)
      VALUES (ch, who, base, keep, share, most, ends) RETURNING * INTO box;
    INSERT INTO pbus.intake VALUES (box.id, 0);
    INSERT INTO pbus.outgo VALUES (box.id, 0);
  ELSIF keep OR NOT box.is_kept THEN
    UPDATE pbus.mailbox SET is_kept = keep, is_shared = share, max_backlog = most, ends_at = ends
      WHERE id = box.id;
  END IF;
END $$;

-- s_: the senders' streams of this batch; e_: its entries, each of one stream.
CREATE OR REPLACE FUNCTION pbus.mail_put(
  ch text, s_sender text[], s_stream bigint[], s_address text[], s_lane text[],
  e_stream int[], e_first bigint[], e_size int[], e_message text[]
) RETURNS TABLE (mailboxes int, is_full boolean) LANGUAGE plpgsql AS $$
DECLARE
  to_all boolean := '*' = ANY(s_address);
  boxes bigint[]; queues text[]; names text[]; shared boolean[]; used bigint[]; most bigint[];
  box_of int[]; last bigint[]; skip bigint; need bigint; s int; b int; l int;
  all_refused boolean[] := '{f,f}';  -- of this lane: a broadcast
  any_refused boolean[] := '{f,f}';  -- of this lane: anything
  refused boolean[];                 -- of this mailbox and lane
  added bigint[]; count_all int; first_new int[];
  target record;
BEGIN
  SELECT coalesce(array_agg(x.id), '{}'), array_agg(x.queue), array_agg(x.name),
         array_agg(x.is_shared), array_agg(x.used), array_agg(x.max_backlog)
    INTO boxes, queues, names, shared, used, most
    FROM (SELECT m.id, m.queue, m.name, m.is_shared, m.max_backlog,
                 i.stored - (SELECT gone FROM pbus.outgo o WHERE o.mailbox = m.id) AS used
            FROM pbus.mailbox m JOIN pbus.intake i ON i.mailbox = m.id
           WHERE m.channel = ch AND (to_all OR m.name = ANY(s_address))
           ORDER BY m.id FOR UPDATE OF i) x;
  SELECT array_agg(array_position(names, w.address) ORDER BY w.n),
         array_agg(coalesce(t.last, 0) ORDER BY w.n)
    INTO box_of, last
    FROM unnest(s_sender, s_stream, s_address, s_lane) WITH ORDINALITY w(sender, stream, address, lane, n)
    LEFT JOIN pbus.stream t ON t.channel = ch AND t.sender = w.sender AND t.stream = w.stream
      AND t.address = w.address AND t.lane = w.lane;
  count_all := (SELECT count(*) FROM unnest(shared) x WHERE NOT x);
  refused := array_fill(false, ARRAY[greatest(2 * cardinality(boxes), 1)]);
  added := array_fill(0::bigint, ARRAY[greatest(cardinality(boxes), 1)]);
  first_new := array_fill(NULL::int, ARRAY[cardinality(e_stream)]);

  FOR i IN 1 .. cardinality(e_stream) LOOP
    s := e_stream[i];
    l := CASE s_lane[s] WHEN 'd' THEN 1 ELSE 2 END;
    b := box_of[s];
    skip := greatest(last[s] - e_first[i] + 1, 0);
    need := e_size[i] - skip;
    is_full := false;
    IF s_address[s] = '*' THEN
      mailboxes := count_all;
      IF need > 0 AND count_all > 0 THEN
        is_full := any_refused[l] OR EXISTS (
          SELECT FROM unnest(used, added, most, shared) x(used, added, most, shared)
          WHERE NOT x.shared AND x.used + x.added > 0 AND x.used + x.added + need > x.most);
        IF is_full THEN
          all_refused[l] := true;
        ELSE
          FOR j IN 1 .. cardinality(boxes) LOOP
            IF NOT shared[j] THEN added[j] := added[j] + need; END IF;
          END LOOP;
        END IF;
      END IF;
    ELSE
      mailboxes := CASE WHEN b IS NULL THEN 0 ELSE 1 END;
      IF need > 0 AND b IS NOT NULL THEN
        is_full := all_refused[l] OR refused[2 * b - l + 1]
          OR (used[b] + added[b] > 0 AND used[b] + added[b] + need > most[b]);
        IF is_full THEN
          refused[2 * b - l + 1] := true;
        ELSE
          added[b] := added[b] + need;
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
    RETURN NEXT;
  END LOOP;

  FOR target IN
    WITH entry AS MATERIALIZED (
      SELECT e.n, e.stream, CASE e.skip WHEN 0 THEN e.message::jsonb ELSE (
               SELECT jsonb_agg(v ORDER BY at) FROM jsonb_array_elements(e.message::jsonb)
                 WITH ORDINALITY p(v, at) WHERE at > e.skip) END AS message,
             jsonb_build_object('n', e.size - e.skip) AS headers
        FROM unnest(e_stream, first_new, e_size, e_message) WITH ORDINALITY
          e(stream, skip, size, message, n)
       WHERE e.skip IS NOT NULL)
    SELECT queues[x.b] || '_' || s_lane[x.stream] AS queue,
           array_agg(x.message ORDER BY x.n) AS messages, array_agg(x.headers ORDER BY x.n) AS headers
      FROM (SELECT e.*, box_of[e.stream] AS b FROM entry e WHERE s_address[e.stream] <> '*'
            UNION ALL
            SELECT e.*, j FROM entry e, generate_subscripts(boxes, 1) j
             WHERE s_address[e.stream] = '*' AND NOT shared[j]) x
     GROUP BY 1
  LOOP
    PERFORM pgmq.send_batch(target.queue, target.messages, target.headers);
  END LOOP;
  UPDATE pbus.intake i SET stored = i.stored + x.added
    FROM unnest(boxes, added) x(box, added) WHERE i.mailbox = x.box AND x.added > 0;
  IF NOT FOUND THEN RETURN; END IF;
  INSERT INTO pbus.stream AS t
    SELECT ch, w.sender, w.stream, w.address, w.lane, w.last, clock_timestamp()
      FROM unnest(s_sender, s_stream, s_address, s_lane, last) w(sender, stream, address, lane, last)
     WHERE w.last > 0 ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (channel, sender, stream, address, lane)
      DO UPDATE SET last = excluded.last, used_at = excluded.used_at;
  PERFORM pbus.mail_ring(ch, (SELECT array_agg(x.box) FROM unnest(boxes, added) x(box, added) WHERE x.added > 0));
END $$;

-- Delete what has no message left, from pbus' list and from its queue.
CREATE OR REPLACE FUNCTION pbus.mail_finish(holds bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE done record;
BEGIN
  FOR done IN
    WITH ended AS (
      DELETE FROM pbus.held WHERE hold = ANY(holds) AND cardinality(gone) >= size
      RETURNING mailbox, lane, msg_id)
    SELECT m.queue || '_' || e.lane AS queue, array_agg(e.msg_id) AS ids
      FROM ended e JOIN pbus.mailbox m ON m.id = e.mailbox GROUP BY 1
  LOOP
    PERFORM pgmq.delete(done.queue, done.ids);
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_count_gone(boxes bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE x record;
BEGIN
  FOR x IN SELECT b, count(*) AS n FROM unnest(boxes) b GROUP BY b ORDER BY b LOOP
    UPDATE pbus.outgo SET gone = gone + x.n WHERE mailbox = x.b;
  END LOOP;
END $$;

-- Back into the queue: at its old place, except what had started, which comes alone from now on.
CREATE OR REPLACE FUNCTION pbus.mail_give_back(ch text, holds bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  h record; q record; letters jsonb; heads jsonb; crashed int[]; rest int[]; total bigint := 0;
  boxes bigint[]; plain bigint[];
BEGIN
  PERFORM FROM pbus.held WHERE hold = ANY(holds) ORDER BY hold FOR UPDATE;
  SELECT coalesce(sum(size - cardinality(gone)), 0), array_agg(DISTINCT mailbox),
         array_agg(hold) FILTER (WHERE gone = '{}' AND started = '{}')
    INTO total, boxes, plain FROM pbus.held WHERE hold = ANY(holds);
  FOR q IN
    SELECT m.queue || '_' || d.lane AS name, array_agg(d.msg_id) AS ids
      FROM pbus.held d JOIN pbus.mailbox m ON m.id = d.mailbox WHERE hold = ANY(plain) GROUP BY 1
  LOOP
    EXECUTE format('UPDATE pgmq.%I SET vt = clock_timestamp(), headers = headers || ''{"s": true}'' WHERE msg_id = ANY($1)', 'q_' || q.name) USING q.ids;
  END LOOP;
  FOR h IN
    SELECT d.*, m.queue || '_' || d.lane AS queue FROM pbus.held d JOIN pbus.mailbox m ON m.id = d.mailbox
     WHERE hold = ANY(holds) AND NOT (gone = '{}' AND started = '{}') ORDER BY hold
  LOOP
    EXECUTE format('SELECT message, headers FROM pgmq.%I WHERE msg_id = $1', 'q_' || h.queue)
      INTO letters, heads USING h.msg_id;
    CONTINUE WHEN letters IS NULL;
    SELECT coalesce(array_agg(p) FILTER (WHERE p = ANY(h.started)), '{}'),
           coalesce(array_agg(p) FILTER (WHERE NOT p = ANY(h.started)), '{}')
      INTO crashed, rest FROM generate_series(0, h.size - 1) p WHERE NOT p = ANY(h.gone);
    heads := heads || '{"s": true}';
    IF h.size = 1 AND cardinality(crashed) = 1 THEN
      heads := heads || jsonb_build_object('c', coalesce((heads->>'c')::int, 0) + 1);
      rest := crashed;
      crashed := '{}';
    END IF;
    FOR i IN 1 .. cardinality(crashed) LOOP
      PERFORM pgmq.send(h.queue, jsonb_build_array(letters->crashed[i]),
        heads || jsonb_build_object('n', 1, 'c', coalesce((heads->>'c')::int, 0) + 1));
    END LOOP;
    IF rest = '{}' THEN
      PERFORM pgmq.delete(h.queue, h.msg_id);
    ELSE
      EXECUTE format('UPDATE pgmq.%I SET vt = clock_timestamp(), headers = $2, message = $3 WHERE msg_id = $1', 'q_' || h.queue)
        USING h.msg_id, heads || jsonb_build_object('n', cardinality(rest)),
          (SELECT jsonb_agg(letters->p ORDER BY p) FROM unnest(rest) p);
    END IF;
  END LOOP;
  DELETE FROM pbus.held WHERE hold = ANY(holds);
  PERFORM pbus.mail_ring(ch, boxes);
  RETURN total;
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_requeue(ch text, prefixes text[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE dead text[];
BEGIN
  -- A take of theirs that is under way has locked its holder: it ends first, and is seen below.
  SELECT array_agg(x.name) INTO dead FROM (
    SELECT name FROM pbus.holder
     WHERE channel = ch AND EXISTS (SELECT FROM unnest(prefixes) p WHERE starts_with(name, p))
     ORDER BY name FOR UPDATE) x;
  UPDATE pbus.holder SET is_dead = true, ends_at = clock_timestamp() + interval '10 min'
    WHERE channel = ch AND name = ANY(dead);
  RETURN pbus.mail_give_back(ch, ARRAY(
    SELECT hold FROM pbus.held WHERE channel = ch AND holder = ANY(dead)));
END $$;

-- What is wanted and free. A hold of NULL: when (in seconds) something wanted will be free.
-- known: the holds that the caller knows of, where an answer may have been lost, else NULL.
CREATE OR REPLACE FUNCTION pbus.mail_take(
  ch text, who text, w_name text[], w_lane text[], w_limit int[], known bigint[], is_alive boolean,
  hold_s float8
) RETURNS TABLE (hold bigint, box bigint, mailbox text, lane text, headers text, message text,
                 gone int[], due float8) LANGUAGE plpgsql AS $$
DECLARE
  me pbus.holder; w record; r record; ids bigint[]; got int; soonest timestamptz; one timestamptz;
  ends timestamptz := clock_timestamp() + hold_s * interval '1 s'; is_any boolean := false;
BEGIN
  INSERT INTO pbus.holder VALUES (ch, who, ends, false) ON CONFLICT DO NOTHING;
  SELECT * INTO me FROM pbus.holder WHERE channel = ch AND name = who FOR UPDATE;
  IF me.is_dead AND NOT is_alive THEN
    RAISE EXCEPTION 'who holds was thought dead' USING ERRCODE = 'PB001';
  END IF;
  IF me.is_dead OR me.ends_at < clock_timestamp() + hold_s / 2 * interval '1 s' THEN
    UPDATE pbus.holder SET is_dead = false, ends_at = ends WHERE channel = ch AND name = who;
  END IF;
  IF known IS NOT NULL THEN
    FOR r IN SELECT m.queue || '_' || h.lane AS queue, m.id, m.name, h.lane, array_agg(h.hold) AS holds
               FROM pbus.held h JOIN pbus.mailbox m ON m.id = h.mailbox
              WHERE h.channel = ch AND h.holder = who AND NOT h.hold = ANY(known) GROUP BY 1, 2, 3, 4
    LOOP
      RETURN QUERY EXECUTE format('SELECT h.hold, $1, $2, $3, q.headers::text, q.message::text, h.gone, NULL::float8 FROM pbus.held h JOIN pgmq.%I q ON q.msg_id = h.msg_id WHERE h.hold = ANY($4) ORDER BY q.msg_id', 'q_' || r.queue)
        USING r.id, r.name, r.lane, r.holds;
      is_any := true;
    END LOOP;
    IF is_any THEN RETURN; END IF;
  END IF;
  FOR w IN SELECT m.id, m.name, m.queue || '_' || x.lane AS queue, x.lane, x.most
             FROM unnest(w_name, w_lane, w_limit) WITH ORDINALITY x(name, lane, most, n)
             JOIN pbus.mailbox m ON m.channel = ch AND m.name = x.name
            ORDER BY x.n FOR KEY SHARE OF m
  LOOP
    ids := '{}';
    got := 0;
    FOR r IN EXECUTE format('SELECT msg_id, (headers->>''n'')::int AS n FROM pgmq.%I WHERE vt <= clock_timestamp() ORDER BY msg_id LIMIT $1 FOR UPDATE SKIP LOCKED', 'q_' || w.queue) USING w.most
    LOOP
      ids := ids || r.msg_id;
      got := got + coalesce(r.n, 1);
      EXIT WHEN got >= w.most;
    END LOOP;
    IF got = 0 THEN
      IF NOT is_any THEN
        EXECUTE format('SELECT min(vt) FROM pgmq.%I WHERE vt > clock_timestamp()', 'q_' || w.queue) INTO one;
        soonest := least(soonest, one);
      END IF;
      CONTINUE;
    END IF;
    is_any := true;
    RETURN QUERY EXECUTE format($take$
      WITH entry AS (
        UPDATE pgmq.%I SET vt = clock_timestamp() + $1 * interval '2 s', read_ct = read_ct + 1,
          last_read_at = clock_timestamp()
        WHERE msg_id = ANY($2) RETURNING msg_id, headers, message),
      again AS (
        SELECT e.msg_id, array_agg(p.at::int - 1) AS gone
          FROM entry e, jsonb_array_elements(e.message) WITH ORDINALITY p(letter, at)
         WHERE EXISTS (SELECT FROM pbus.handled d WHERE d.mailbox = $3 AND d.id = p.letter->>0)
         GROUP BY 1),
      counted AS (
        UPDATE pbus.outgo SET gone = outgo.gone + (SELECT sum(cardinality(a.gone)) FROM again a)
         WHERE mailbox = $3 AND EXISTS (SELECT FROM again)),
      taken AS (
        INSERT INTO pbus.held (mailbox, lane, msg_id, channel, holder, held_at, size, gone, started)
        SELECT $3, $5, e.msg_id, $6, $7, clock_timestamp(), jsonb_array_length(e.message),
               coalesce(a.gone, '{}'), '{}' FROM entry e LEFT JOIN again a USING (msg_id)
        RETURNING held.hold, held.msg_id, held.gone)
      SELECT t.hold, $3, $4, $5, e.headers::text, e.message::text, t.gone, NULL::float8
        FROM taken t JOIN entry e USING (msg_id) ORDER BY msg_id $take$, 'q_' || w.queue)
      USING hold_s, ids, w.id, w.name, w.lane, ch, who;
  END LOOP;
  IF NOT is_any AND soonest IS NOT NULL THEN
    hold := NULL;
    due := extract(epoch FROM soonest - clock_timestamp());
    RETURN NEXT;
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_started(holds bigint[], positions int[]) RETURNS void
LANGUAGE sql AS $$
  UPDATE pbus.held h SET started = h.started || x.positions
    FROM (SELECT hold, array_agg(position) AS positions
            FROM unnest(holds, positions) x(hold, position) GROUP BY 1) x
   WHERE h.hold = x.hold;
$$;

CREATE OR REPLACE FUNCTION pbus.mail_settle(
  ch text, s_hold bigint[], s_pos int[], s_box bigint[], s_id text[], s_how text[],
  s_delay float8[], s_reason text[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  live int[]; x record; letter jsonb; heads jsonb; again bigint[] := '{}';
BEGIN
  INSERT INTO pbus.handled
    SELECT DISTINCT s.box, s.id, clock_timestamp() FROM unnest(s_box, s_id, s_how) s(box, id, how)
      JOIN pbus.mailbox m ON m.id = s.box WHERE s.how = 'handled' ORDER BY 1, 2
    ON CONFLICT DO NOTHING;
  PERFORM FROM pbus.held WHERE hold = ANY(s_hold) ORDER BY hold FOR UPDATE;
  -- Which of the settlements still mean something.
  SELECT array_agg(n) INTO live FROM (
    SELECT min(s.n) AS n FROM unnest(s_hold, s_pos) WITH ORDINALITY s(hold, pos, n)
      JOIN pbus.held h ON h.hold = s.hold
     WHERE NOT s.pos = ANY(h.gone) AND s.pos < h.size GROUP BY s.hold, s.pos) t;
  IF live IS NULL THEN RETURN; END IF;
  FOR x IN
    SELECT m.queue || '_' || h.lane AS queue, h.mailbox, h.lane, h.msg_id, s_pos[n] AS pos,
           s_how[n] AS how, s_delay[n] AS delay, s_reason[n] AS reason
      FROM unnest(live) n JOIN pbus.held h ON h.hold = s_hold[n] JOIN pbus.mailbox m ON m.id = h.mailbox
     WHERE s_how[n] <> 'handled' ORDER BY n
  LOOP
    EXECUTE format('SELECT message->$2, headers FROM pgmq.%I WHERE msg_id = $1', 'q_' || x.queue)
      INTO letter, heads USING x.msg_id, x.pos;
    CONTINUE WHEN letter IS NULL;
    IF x.how = 'retry' THEN
      PERFORM pgmq.send(x.queue, jsonb_build_array(letter),
        heads || jsonb_build_object('n', 1, 'a', coalesce((heads->>'a')::int, 1) + 1),
        clock_timestamp() + x.delay * interval '1 s');
      again := again || x.mailbox;
    ELSE
      INSERT INTO pbus.dead (mailbox, lane, letter, reason, attempt, crashes, buried_at) VALUES (
        x.mailbox, x.lane, letter, x.reason, coalesce((heads->>'a')::int, 1),
        coalesce((heads->>'c')::int, 0), clock_timestamp());
    END IF;
  END LOOP;
  UPDATE pbus.held h SET gone = h.gone || t.positions
    FROM (SELECT s_hold[n] AS hold, array_agg(s_pos[n]) AS positions FROM unnest(live) n GROUP BY 1) t
   WHERE h.hold = t.hold;
  PERFORM pbus.mail_count_gone(ARRAY(
    SELECT h.mailbox FROM unnest(live) n JOIN pbus.held h ON h.hold = s_hold[n] WHERE s_how[n] <> 'retry'));
  PERFORM pbus.mail_finish(s_hold);
  IF again <> '{}' THEN PERFORM pbus.mail_ring(ch, again); END IF;
END $$;

-- Renews what is ours, removes what ran out; returns the mailboxes that are not there.
CREATE OR REPLACE FUNCTION pbus.mail_touch(
  ch text, names text[], holders text[], lease_s float8, hold_s float8
) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE x record;
BEGIN
  FOR x IN SELECT id FROM pbus.mailbox
            WHERE channel = ch AND NOT is_kept AND ends_at <= clock_timestamp()
            ORDER BY id FOR UPDATE SKIP LOCKED LOOP
    PERFORM pbus.mail_remove(x.id);
  END LOOP;
  UPDATE pbus.mailbox SET ends_at = clock_timestamp() + lease_s * interval '1 s'
    WHERE channel = ch AND name = ANY(names) AND NOT is_kept;
  UPDATE pbus.holder SET ends_at = clock_timestamp() + hold_s * interval '1 s'
    WHERE channel = ch AND name = ANY(holders) AND NOT is_dead;
  FOR x IN
    WITH old AS (
      UPDATE pbus.held SET held_at = clock_timestamp()
       WHERE channel = ch AND holder = ANY(holders)
         AND held_at < clock_timestamp() - hold_s / 2 * interval '1 s'
      RETURNING mailbox, lane, msg_id)
    SELECT m.queue || '_' || o.lane AS queue, array_agg(o.msg_id) AS ids
      FROM old o JOIN pbus.mailbox m ON m.id = o.mailbox GROUP BY 1
  LOOP
    PERFORM pgmq.set_vt(x.queue, x.ids, clock_timestamp() + hold_s * interval '2 s');
  END LOOP;
  FOR x IN SELECT name, is_dead FROM pbus.holder
            WHERE channel = ch AND ends_at <= clock_timestamp() ORDER BY name FOR UPDATE SKIP LOCKED
  LOOP
    IF x.is_dead THEN
      DELETE FROM pbus.holder WHERE channel = ch AND name = x.name;
    ELSE
      PERFORM pbus.mail_requeue_one(ch, x.name);
    END IF;
  END LOOP;
  RETURN QUERY SELECT n FROM unnest(names) n
    WHERE NOT EXISTS (SELECT FROM pbus.mailbox WHERE channel = ch AND name = n);
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_requeue_one(ch text, who text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  UPDATE pbus.holder SET is_dead = true, ends_at = clock_timestamp() + interval '10 min'
    WHERE channel = ch AND name = who;
  PERFORM pbus.mail_give_back(ch, ARRAY(
    SELECT hold FROM pbus.held WHERE channel = ch AND holder = who));
END $$;

-- Forgets what was handled long ago, and more; from time to time.
CREATE OR REPLACE FUNCTION pbus.mail_tidy(ch text, kept_s float8, kept bigint, dead_kept bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE x record;
BEGIN
  FOR x IN SELECT id FROM pbus.mailbox WHERE channel = ch ORDER BY id LOOP
    DELETE FROM pbus.handled WHERE mailbox = x.id AND at <= greatest(
      clock_timestamp() - kept_s * interval '1 s',
      (SELECT at FROM pbus.handled WHERE mailbox = x.id ORDER BY at DESC OFFSET kept LIMIT 1));
    DELETE FROM pbus.dead WHERE mailbox = x.id AND key <= (
      SELECT key FROM pbus.dead WHERE mailbox = x.id ORDER BY key DESC OFFSET dead_kept LIMIT 1);
  END LOOP;
  DELETE FROM pbus.stream WHERE channel = ch
    AND used_at < clock_timestamp() - kept_s * interval '1 s';
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_reports(ch text) RETURNS TABLE (
  name text, backlog bigint, in_flight bigint, oldest_s float8, retries bigint, dead bigint
) LANGUAGE plpgsql AS $$
DECLARE m record; one record; lane text; first timestamptz;
BEGIN
  FOR m IN SELECT b.*, i.stored - o.gone AS left FROM pbus.mailbox b
             JOIN pbus.intake i ON i.mailbox = b.id JOIN pbus.outgo o ON o.mailbox = b.id
            WHERE b.channel = ch ORDER BY b.name COLLATE "C" FOR KEY SHARE OF b LOOP
    name := m.name;
    backlog := m.left;
    SELECT coalesce(sum(size - cardinality(gone)), 0) INTO in_flight FROM pbus.held WHERE channel = ch AND mailbox = m.id;
    SELECT count(*) INTO dead FROM pbus.dead d WHERE d.mailbox = m.id;
    retries := 0;
    first := NULL;
    FOREACH lane IN ARRAY ARRAY['_d', '_s'] LOOP
      EXECUTE format('SELECT min(enqueued_at) AS first, count(*) FILTER (WHERE headers ? ''a'') AS retries FROM pgmq.%I', 'q_' || m.queue || lane) INTO one;
      first := least(first, one.first);
      retries := retries + one.retries;
    END LOOP;
    oldest_s := extract(epoch FROM clock_timestamp() - first);
    RETURN NEXT;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_revive(ch text, keys bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE x record; boxes bigint[] := '{}';
BEGIN
  FOR x IN
    WITH raised AS (
      DELETE FROM pbus.dead d USING pbus.mailbox m
       WHERE d.key = ANY(keys) AND m.id = d.mailbox AND m.channel = ch
      RETURNING d.key, d.mailbox, d.letter, m.queue || '_' || d.lane AS queue)
    SELECT * FROM raised ORDER BY mailbox, key
  LOOP
    UPDATE pbus.intake SET stored = stored + 1 WHERE mailbox = x.mailbox;
    PERFORM pgmq.send(x.queue, jsonb_build_array(x.letter), '{"n": 1}'::jsonb);
    boxes := boxes || x.mailbox;
  END LOOP;
  PERFORM pbus.mail_ring(ch, boxes);
  RETURN cardinality(boxes);
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_purge(ch text, who text, remove boolean) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE box pbus.mailbox; one text; n bigint; total bigint := 0;
BEGIN
  SELECT * INTO box FROM pbus.mailbox WHERE channel = ch AND name = who FOR KEY SHARE;
  IF NOT FOUND THEN RETURN 0; END IF;
  FOREACH one IN ARRAY ARRAY['d', 's'] LOOP
    EXECUTE format('WITH gone AS (
        DELETE FROM pgmq.%I q WHERE NOT msg_id = ANY(ARRAY(
          SELECT h.msg_id FROM pbus.held h WHERE h.channel = $3 AND h.mailbox = $1 AND h.lane = $2))
        RETURNING (headers->>''n'')::int AS n)
      SELECT coalesce(sum(n), 0) FROM gone', 'q_' || box.queue || '_' || one)
      INTO n USING box.id, one, ch;
    total := total + n;
  END LOOP;
  UPDATE pbus.outgo SET gone = gone + total WHERE mailbox = box.id;
  IF remove THEN PERFORM pbus.mail_remove(box.id); END IF;
  RETURN total;
END $$;
