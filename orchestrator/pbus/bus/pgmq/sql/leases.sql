-- Leases: each step is one function; the channel's membership row is its lock and its version.

CREATE OR REPLACE FUNCTION pbus.lease_lock(ch text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE at bigint;
BEGIN
  -- Begins with the time: after a crash no version comes back that a process knows.
  INSERT INTO pbus.membership VALUES (ch, pbus.lease_ms())
    ON CONFLICT DO NOTHING;
  SELECT version INTO at FROM pbus.membership WHERE channel = ch FOR UPDATE;
  RETURN at;
END $$;

-- Count and note a change. Functions of an earlier pbus count without a note: then the notes begin again.
CREATE OR REPLACE FUNCTION pbus.lease_bump(ch text, who text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE at bigint;
BEGIN
  UPDATE pbus.membership m SET version = m.version + 1, noted = m.version + 1,
      floor = CASE WHEN m.noted = m.version THEN m.floor ELSE m.version END
    WHERE channel = ch RETURNING m.version INTO at;
  INSERT INTO pbus.lease_change VALUES (ch, who, at)
    ON CONFLICT (channel, name) DO UPDATE SET version = excluded.version;
  IF at % 1000 = 0 THEN  -- names without a lease are noted for a while only
    DELETE FROM pbus.lease_change c WHERE channel = ch AND c.version <= at - 2000
       AND NOT EXISTS (SELECT FROM pbus.lease l WHERE l.channel = ch AND l.name = c.name);
    UPDATE pbus.membership m SET floor = greatest(m.floor, at - 2000) WHERE channel = ch;
  END IF;
END $$;

-- A body is stored behind the time of its renewal and returned behind its age, in ms and in a line of
-- its own: readers compare no other clock than the server's.
CREATE OR REPLACE FUNCTION pbus.lease_ms() RETURNS bigint LANGUAGE sql AS $$
  SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
$$;

CREATE OR REPLACE FUNCTION pbus.lease_aged(body text) RETURNS text LANGUAGE sql AS $$
  SELECT CASE WHEN body ~ '^\d{1,15}\n'
    THEN pbus.lease_ms() - split_part(body, E'\n', 1)::bigint || E'\n' || split_part(body, E'\n', 2)
    ELSE body END;
$$;

-- The bodies of leases that run, those that end first; see leases.py, LEFT_OUT. Of an invented one that is
-- too large only the name, and nothing of more than so many.
CREATE OR REPLACE FUNCTION pbus.lease_bodies(ch text) RETURNS text[] LANGUAGE sql VOLATILE AS $$
  SELECT coalesce(array_agg(CASE WHEN n > 10000 THEN '!'
                                 WHEN octet_length(body) > 66560 THEN '!' || left(name, 100)
                                 ELSE pbus.lease_aged(body) END ORDER BY name COLLATE "C"), '{}')
    FROM (SELECT name, body, row_number() OVER (ORDER BY ends_at) AS n FROM pbus.lease
           WHERE channel = ch AND ends_at > clock_timestamp() ORDER BY ends_at LIMIT 10001) x;
$$;

-- What a reader gets of a lease: see leases.py, BRIEF. Processes of before have shorter heads.
CREATE OR REPLACE FUNCTION pbus.lease_text(who text, news text, body text, is_brief boolean) RETURNS text
LANGUAGE sql AS $$
  SELECT CASE WHEN octet_length(body) > 66560 THEN '!' || left(who, 100)
              WHEN is_brief AND length(news) < 1000 AND news LIKE '%|%|%|%|%' THEN '=' || who || E'\n' || news
              ELSE pbus.lease_aged(body) END;
$$;

-- As lease_bodies, with as little of each lease as a registry needs.
CREATE OR REPLACE FUNCTION pbus.lease_heads(ch text) RETURNS text[] LANGUAGE sql VOLATILE AS $$
  SELECT coalesce(array_agg(CASE WHEN n > 10000 THEN '!' ELSE pbus.lease_text(name, head, body, true) END), '{}')
    FROM (SELECT name, head, body, row_number() OVER (ORDER BY ends_at) AS n FROM pbus.lease
           WHERE channel = ch AND ends_at > clock_timestamp() ORDER BY ends_at LIMIT 10001) x;
$$;

-- The body of the lease that holds the name, when that is another incarnation's.
CREATE OR REPLACE FUNCTION pbus.lease_put(
  ch text, who text, inc text, news text, lease text, ttl float8
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE held record;
BEGIN
  SELECT incarnation, head, body INTO held FROM pbus.lease WHERE channel = ch AND name = who;
  IF FOUND AND octet_length(held.body) > 66560 THEN  -- none of ours: its owner had been told
    DELETE FROM pbus.lease WHERE channel = ch AND name = who;
    held.head := NULL;
  ELSIF FOUND AND held.incarnation <> inc THEN
    RETURN pbus.lease_aged(held.body);
  END IF;
  lease := pbus.lease_ms() || E'\n' || lease;
  IF held.head IS DISTINCT FROM news THEN PERFORM pbus.lease_bump(ch, who); END IF;
  INSERT INTO pbus.lease VALUES (ch, who, inc, news, lease, clock_timestamp() + ttl * interval '1 s')
    ON CONFLICT (channel, name) DO UPDATE SET incarnation = excluded.incarnation,
      head = excluded.head, body = excluded.body, ends_at = excluded.ends_at;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION pbus.lease_claim(
  ch text, who text, inc text, news text, lease text, ttl float8
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pbus.lease_lock(ch);
  DELETE FROM pbus.lease WHERE channel = ch AND name = who AND ends_at <= clock_timestamp();
  IF FOUND THEN PERFORM pbus.lease_bump(ch, who); END IF;
  RETURN pbus.lease_put(ch, who, inc, news, lease, ttl);
END $$;

-- Removes a lease that no holder of the key wrote, unless another has its place by now.
CREATE OR REPLACE FUNCTION pbus.lease_evict(ch text, who text, text_of text) RETURNS void
LANGUAGE sql AS $$
  DELETE FROM pbus.lease
    WHERE channel = ch AND name = who AND right(body, length(text_of)) = text_of;
$$;

-- Renew leases, remove what ran out, and read: what changed since a version and the names wanted, or all
-- where that is not known, or no list of names is given; nothing for -2, nor where nothing changed.
CREATE OR REPLACE FUNCTION pbus.lease_renew(
  ch text, names text[], incs text[], heads text[], bodies text[], ttl float8,
  known bigint, wanted text[], is_brief boolean
) RETURNS TABLE (version bigint, expired text[], refused text[], leases text[], absent text[])
LANGUAGE plpgsql AS $$
DECLARE it record; is_noted boolean;
BEGIN
  PERFORM pbus.lease_lock(ch);
  expired := '{}';
  FOR it IN DELETE FROM pbus.lease l WHERE l.channel = ch AND l.ends_at <= clock_timestamp()
            RETURNING l.name, l.body LOOP
    PERFORM pbus.lease_bump(ch, it.name);
    IF octet_length(it.body) <= 66560 THEN expired := expired || pbus.lease_aged(it.body); END IF;
  END LOOP;
  refused := '{}';
  FOR i IN 1 .. coalesce(array_length(names, 1), 0) LOOP
    IF pbus.lease_put(ch, names[i], incs[i], heads[i], bodies[i], ttl) IS NOT NULL THEN
      refused := refused || names[i];
    END IF;
  END LOOP;
  SELECT m.version, wanted IS NOT NULL AND m.noted = m.version AND known BETWEEN m.floor AND m.version
    INTO version, is_noted FROM pbus.membership m WHERE m.channel = ch;
  IF cardinality(expired) > 0 THEN
    is_noted := false;  -- what expired may be a copy of what runs: the reader compares
  ELSIF known = -2 OR (known = version AND coalesce(cardinality(wanted), 0) = 0) THEN
    RETURN NEXT;
    RETURN;
  END IF;
  IF is_noted THEN
    SELECT wanted || coalesce(array_agg(c.name), '{}') INTO wanted FROM pbus.lease_change c
      WHERE c.channel = ch AND c.version > known;
    is_noted := cardinality(wanted) <= 10000;
  END IF;
  IF NOT is_noted THEN
    leases := CASE WHEN is_brief THEN pbus.lease_heads(ch) ELSE pbus.lease_bodies(ch) END;
    RETURN NEXT;
    RETURN;
  END IF;
  SELECT coalesce(array_agg(pbus.lease_text(l.name, l.head, l.body, is_brief)) FILTER (WHERE l.name IS NOT NULL), '{}'),
         coalesce(array_agg(w.who) FILTER (WHERE l.name IS NULL), '{}')
    INTO leases, absent
    FROM (SELECT DISTINCT unnest(wanted) AS who) w
    LEFT JOIN pbus.lease l ON l.channel = ch AND l.name = w.who AND l.ends_at > clock_timestamp();
  RETURN NEXT;
END $$;

CREATE OR REPLACE FUNCTION pbus.lease_extend(ch text, prefixes text[], ttl float8) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pbus.lease_lock(ch);
  UPDATE pbus.lease SET ends_at = clock_timestamp() + ttl * interval '1 s'
    WHERE channel = ch AND EXISTS (SELECT FROM unnest(prefixes) p WHERE starts_with(incarnation, p));
END $$;

CREATE OR REPLACE FUNCTION pbus.lease_release(ch text, prefixes text[]) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE it record;
BEGIN
  PERFORM pbus.lease_lock(ch);
  PERFORM pbus.stream_forget(ch, prefixes);
  FOR it IN DELETE FROM pbus.lease
    WHERE channel = ch AND EXISTS (SELECT FROM unnest(prefixes) p WHERE starts_with(incarnation, p))
    RETURNING name, body LOOP
    PERFORM pbus.lease_bump(ch, it.name);
    RETURN NEXT pbus.lease_aged(it.body);
  END LOOP;
END $$;

-- What is remembered of a worker, and what processes tell of themselves.
CREATE OR REPLACE FUNCTION pbus.activation_set(ch text, who text, its_body text) RETURNS void
LANGUAGE sql AS $$
  INSERT INTO pbus.activation VALUES (ch, who, its_body)
    ON CONFLICT (channel, name) DO UPDATE SET body = excluded.body;
$$;

CREATE OR REPLACE FUNCTION pbus.record_put(ch text, its_key text, its_body bytea, ttl float8)
RETURNS void LANGUAGE sql AS $$
  INSERT INTO pbus.record VALUES (ch, its_key, its_body, clock_timestamp() + ttl * interval '1 s')
    ON CONFLICT (channel, key) DO UPDATE SET body = excluded.body, ends_at = excluded.ends_at;
$$;

CREATE OR REPLACE FUNCTION pbus.records(ch text) RETURNS TABLE (key text, body bytea)
LANGUAGE sql AS $$
  DELETE FROM pbus.record WHERE channel = ch AND ends_at <= clock_timestamp();
  SELECT x.key, x.body FROM (
    SELECT r.key, r.body, sum(octet_length(r.body)) OVER (ORDER BY r.ends_at, r.key) AS upto
      FROM pbus.record r WHERE r.channel = ch AND r.ends_at > clock_timestamp()
        AND octet_length(r.body) <= 4194304 ORDER BY r.ends_at, r.key LIMIT 1000) x
   WHERE x.upto <= 67108864;
$$;

CREATE OR REPLACE FUNCTION pbus.record_drop(ch text, its_key text) RETURNS void LANGUAGE sql AS $$
  DELETE FROM pbus.record WHERE channel = ch AND key = its_key;
$$;

-- What processes counted; kept for a while after their end.
CREATE OR REPLACE FUNCTION pbus.stats_put(ch text, its_key text, its_body bytea, ttl float8)
RETURNS void LANGUAGE sql AS $$
  INSERT INTO pbus.stats VALUES (ch, its_key, its_body, clock_timestamp() + ttl * interval '1 s')
    ON CONFLICT (channel, key) DO UPDATE SET body = excluded.body, ends_at = excluded.ends_at;
$$;

CREATE OR REPLACE FUNCTION pbus.stats_read(ch text, its_key text) RETURNS TABLE (key text, body bytea)
LANGUAGE sql AS $$
  DELETE FROM pbus.stats WHERE channel = ch AND ends_at <= clock_timestamp();
  SELECT x.key, x.body FROM (
    SELECT r.key, r.body, sum(octet_length(r.body)) OVER (ORDER BY r.ends_at, r.key) AS upto
      FROM pbus.stats r WHERE r.channel = ch AND (its_key IS NULL OR r.key = its_key)
        AND octet_length(r.body) <= 4194304 ORDER BY r.ends_at, r.key LIMIT 1000) x
   WHERE x.upto <= 67108864;
$$;
