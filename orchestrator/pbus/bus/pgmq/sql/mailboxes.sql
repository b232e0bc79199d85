-- Stored mail. A row of a queue is an entry: a jsonb array of [id, body] pairs, and in its headers
-- n (how many), a (attempt), c (crashes), s (suspect) and t (when it was first stored, where its row
-- is a later one). Only entries of one have a, c or t.

CREATE OR REPLACE FUNCTION pbus.mail_since(heads jsonb, enqueued timestamptz) RETURNS float8
LANGUAGE sql STABLE AS $$
  SELECT coalesce((heads->>'t')::float8, extract(epoch FROM enqueued)::float8);
$$;

-- Headers as a receiver gets them: with the entry's number (i) and its age in seconds (e), too.
CREATE OR REPLACE FUNCTION pbus.mail_heads(heads jsonb, id bigint, enqueued timestamptz) RETURNS text
LANGUAGE sql VOLATILE AS $$
  SELECT (heads || jsonb_build_object('i', id,
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
  IF FOUND AND pbus.mail_is_over(box) THEN
    PERFORM pbus.mail_remove(box.id);
    box := NULL;
  END IF;
  IF box.id IS NULL THEN
    PERFORM pgmq.create(base || '_d');
    PERFORM pgmq.create(base || '_s');
    PERFORM pbus.mail_build_take(base);
    PERFORM pbus.mail_build_put(base);
    INSERT INTO pbus.mailbox (channel, name, queue, is_kept, is_shared, max_backlog, ends_at)
      VALUES (ch, who, base, keep, share, most, ends) RETURNING * INTO box;
    INSERT INTO pbus.intake VALUES (box.id, 0);
    INSERT INTO pbus.outgo VALUES (box.id, 0);
  ELSIF keep OR NOT box.is_kept THEN
    UPDATE pbus.mailbox SET is_kept = keep, is_shared = share, max_backlog = most, ends_at = ends
      WHERE id = box.id;
  END IF;
END $$;

-- Forgets what was handled long ago, and more; from time to time.
CREATE OR REPLACE FUNCTION pbus.mail_tidy(ch text, kept_s float8, kept bigint, dead_kept bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE x record;
BEGIN
  FOR x IN SELECT id FROM pbus.mailbox WHERE channel = ch ORDER BY id LOOP
    DELETE FROM pbus.handled WHERE mailbox + 0 = x.id AND at <= greatest(
      clock_timestamp() - kept_s * interval '1 s',
      (SELECT at FROM pbus.handled WHERE mailbox + 0 = x.id ORDER BY at DESC OFFSET kept LIMIT 1));
    DELETE FROM pbus.dead WHERE mailbox = x.id AND key <= (
      SELECT key FROM pbus.dead WHERE mailbox = x.id ORDER BY key DESC OFFSET dead_kept LIMIT 1);
  END LOOP;
  DELETE FROM pbus.stream WHERE channel = ch
    AND used_at < clock_timestamp() - kept_s * interval '1 s';
END $$;

CREATE OR REPLACE FUNCTION pbus.mail_reports(ch text) RETURNS TABLE (
  name text, backlog bigint, in_flight bigint, oldest_s float8, retries bigint, dead bigint
) LANGUAGE plpgsql AS $$
DECLARE m record; one record; lane text; first float8;
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
