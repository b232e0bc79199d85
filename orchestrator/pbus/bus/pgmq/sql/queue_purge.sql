-- Purging a queue: all at once where no other session is in the way, else in slices. A million rows take a second
-- to delete, and longer than that before their space is used again.

-- Remove a queue with its messages; returns how many of them waited.
CREATE OR REPLACE FUNCTION pbus.queue_purge_whole(ch text, who text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE its_queue bigint; total bigint;
BEGIN
  SELECT q.id INTO its_queue FROM pbus.queue q WHERE q.channel = ch AND q.name = who FOR UPDATE;
  IF NOT FOUND THEN RETURN 0; END IF;
  total := (SELECT u.messages FROM pbus.queue_used(its_queue) u) - (
    SELECT coalesce(sum(h.size - cardinality(h.gone)), 0) FROM pbus.in_flight h
     WHERE h.channel = ch AND h.queue_id = its_queue);
  PERFORM pbus.queue_remove(its_queue);
  RETURN greatest(total, 0);
END $$;

-- Empty a queue of all that is not in flight by truncating its tables, which gives the disk back; returns
-- how many messages fell. NULL, and nothing done: too much is in flight, or others hold the tables. Locks
-- are taken in the order of those that write: what comes, tables, what goes.
CREATE OR REPLACE FUNCTION pbus.queue_purge_at_once(ch text, who text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  its_queue pbus.queue; one text; used record; held jsonb; n bigint; load bigint;
  kept bigint := 0; weight bigint := 0; settled bigint; rows_held jsonb[] := '{}';
BEGIN
  SELECT * INTO its_queue FROM pbus.queue q WHERE q.channel = ch AND q.name = who FOR KEY SHARE;
  IF NOT FOUND THEN RETURN 0; END IF;
  IF (SELECT count(*) > 5000 OR sum(h.bytes) > 16777216 FROM pbus.in_flight h
       WHERE h.channel = ch AND h.queue_id = its_queue.id) THEN
    RETURN NULL;
  END IF;
  PERFORM set_config('lock_timeout', '200', true);
  PERFORM pbus.queue_lock_count(its_queue.id, 'in');
  FOREACH one IN ARRAY ARRAY['d', 's'] LOOP
    EXECUTE format('LOCK TABLE pgmq.%I IN ACCESS EXCLUSIVE MODE', 'q_' || its_queue.base || '_' || one);
  END LOOP;
  PERFORM pbus.queue_lock_count(its_queue.id, 'out');
  SELECT * INTO used FROM pbus.queue_used(its_queue.id);
  FOREACH one IN ARRAY ARRAY['d', 's'] LOOP
    EXECUTE format('SELECT coalesce(jsonb_agg(to_jsonb(q)), ''[]''),
        coalesce(sum(pbus.queue_entry_count(q.headers)), 0), coalesce(sum(pbus.queue_entry_bytes(q.headers)), 0)
        FROM pgmq.%I q WHERE q.msg_id = ANY(ARRAY(SELECT h.msg_id FROM pbus.in_flight h
          WHERE h.channel = $1 AND h.queue_id = $2 AND h.lane = $3))', 'q_' || its_queue.base || '_' || one)
      INTO held, n, load USING ch, its_queue.id, one;
    kept := kept + n;
    weight := weight + load;
    EXECUTE format('TRUNCATE pgmq.%I', 'q_' || its_queue.base || '_' || one);
    EXECUTE format('INSERT INTO pgmq.%1$I OVERRIDING SYSTEM VALUE
        SELECT * FROM jsonb_populate_recordset(NULL::pgmq.%1$I, $1)', 'q_' || its_queue.base || '_' || one)
      USING held;
  END LOOP;
  SELECT coalesce(sum(cardinality(h.gone)), 0) INTO settled FROM pbus.in_flight h
   WHERE h.channel = ch AND h.queue_id = its_queue.id;
  n := used.messages - (kept - settled);
  PERFORM pbus.queue_count_out(its_queue.id, n, used.bytes - weight);
  RETURN greatest(n, 0);
EXCEPTION WHEN lock_not_available OR insufficient_privilege THEN
  RETURN NULL;
END $$;

-- Delete some rows of a lane that are not in flight, after a row; returns how many messages fell, and the
-- row after which to go on, or NULL. A row that is being fetched is left alone.
CREATE OR REPLACE FUNCTION pbus.queue_purge_some(
  ch text, who text, its_lane text, after bigint, most int, OUT fell bigint, OUT upto bigint
) LANGUAGE plpgsql AS $$
DECLARE its_queue pbus.queue; ids bigint[]; load bigint;
BEGIN
  fell := 0;
  SELECT * INTO its_queue FROM pbus.queue q WHERE q.channel = ch AND q.name = who FOR KEY SHARE;
  IF NOT FOUND THEN RETURN; END IF;
  EXECUTE format('SELECT array_agg(msg_id), max(msg_id) FROM (
      SELECT msg_id FROM pgmq.%I WHERE msg_id > $1 ORDER BY msg_id LIMIT $2 FOR UPDATE SKIP LOCKED) q',
      'q_' || its_queue.base || '_' || its_lane) INTO ids, upto USING after, most;
  IF upto IS NULL THEN RETURN; END IF;
  -- Only now: what was fetched before its row was locked is in flight.
  ids := ARRAY(SELECT u FROM unnest(ids) u EXCEPT SELECT h.msg_id FROM pbus.in_flight h
                WHERE h.channel = ch AND h.queue_id = its_queue.id AND h.lane = its_lane);
  EXECUTE format('WITH gone AS (
      DELETE FROM pgmq.%I WHERE msg_id = ANY($1)
      RETURNING pbus.queue_entry_count(headers) AS n, pbus.queue_entry_bytes(headers) AS size)
    SELECT coalesce(sum(n), 0), coalesce(sum(size), 0) FROM gone', 'q_' || its_queue.base || '_' || its_lane)
    INTO fell, load USING ids;
  IF fell > 0 OR load > 0 THEN PERFORM pbus.queue_count_out(its_queue.id, fell, load); END IF;
END $$;
