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

CREATE OR REPLACE FUNCTION pbus.lease_bump(ch text) RETURNS void LANGUAGE sql AS $$
  UPDATE pbus.membership SET version = version + 1 WHERE channel = ch;
$$;

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
  IF held.head IS DISTINCT FROM news THEN PERFORM pbus.lease_bump(ch); END IF;
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
  IF FOUND THEN PERFORM pbus.lease_bump(ch); END IF;
  RETURN pbus.lease_put(ch, who, inc, news, lease, ttl);
END $$;

-- Removes a lease that no holder of the key wrote, unless another has its place by now.
CREATE OR REPLACE FUNCTION pbus.lease_evict(ch text, who text, text_of text) RETURNS void
LANGUAGE sql AS $$
  DELETE FROM pbus.lease
    WHERE channel = ch AND name = who AND right(body, length(text_of)) = text_of;
$$;

CREATE OR REPLACE FUNCTION pbus.lease_renew(
  ch text, names text[], incs text[], heads text[], bodies text[], ttl float8, known bigint
) RETURNS TABLE (version bigint, expired text[], refused text[], leases text[]) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pbus.lease_lock(ch);
  WITH gone AS (
    DELETE FROM pbus.lease WHERE channel = ch AND ends_at <= clock_timestamp() RETURNING body
  ) SELECT coalesce(array_agg(pbus.lease_aged(body)) FILTER (WHERE octet_length(body) <= 66560), '{}')
      INTO expired FROM gone;
  IF cardinality(expired) > 0 THEN PERFORM pbus.lease_bump(ch); END IF;
  refused := '{}';
  FOR i IN 1 .. coalesce(array_length(names, 1), 0) LOOP
    IF pbus.lease_put(ch, names[i], incs[i], heads[i], bodies[i], ttl) IS NOT NULL THEN
      refused := refused || names[i];
    END IF;
  END LOOP;
  SELECT m.version INTO version FROM pbus.membership m WHERE channel = ch;
  -- What expired may be a copy of what runs: the reader compares.
  IF cardinality(expired) > 0 OR (version <> known AND known <> -2) THEN
    leases := pbus.lease_bodies(ch);
  END IF;
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
BEGIN
  PERFORM pbus.lease_lock(ch);
  PERFORM pbus.stream_forget(ch, prefixes);
  RETURN QUERY DELETE FROM pbus.lease
    WHERE channel = ch AND EXISTS (SELECT FROM unnest(prefixes) p WHERE starts_with(incarnation, p))
    RETURNING pbus.lease_aged(body);
  IF FOUND THEN PERFORM pbus.lease_bump(ch); END IF;
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
