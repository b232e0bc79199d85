-- The counts of a queue, and where a scan of its rows begins: neither may depend on how many dead rows
-- there are. While another session holds an old snapshot (a report, a dump, an idle transaction), none
-- can be removed, and an index leads past all of them.

-- Lock a queue's count of what came (side 'in') or went ('out') until the end of the transaction. What
-- is locked is read by later statements.
CREATE OR REPLACE FUNCTION pbus.queue_lock_count(its_queue bigint, its_side text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM pbus.queue_lock WHERE queue_id = its_queue AND side = its_side FOR UPDATE;
END $$;

-- Add to what came into a queue; the caller has locked it.
CREATE OR REPLACE FUNCTION pbus.queue_count_in(its_queue bigint, n bigint, load bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE many int;
BEGIN
  UPDATE pbus.enqueued_count SET stored = stored + n, bytes = bytes + load, updates = updates + 1
   WHERE queue_id = its_queue AND generation = (
     SELECT i.generation FROM pbus.enqueued_count i WHERE i.queue_id = its_queue
      ORDER BY i.generation DESC LIMIT 1)
  RETURNING updates INTO many;
  IF many >= 200 THEN
    WITH old AS (DELETE FROM pbus.enqueued_count WHERE queue_id = its_queue AND generation = (
        SELECT i.generation FROM pbus.enqueued_count i WHERE i.queue_id = its_queue
         ORDER BY i.generation DESC LIMIT 1) RETURNING *)
    INSERT INTO pbus.enqueued_count (queue_id, generation, stored, bytes)
      SELECT queue_id, generation + 1, stored, bytes FROM old;
  END IF;
END $$;

-- Add to what went from a queue, and to the dead letters that fell.
CREATE OR REPLACE FUNCTION pbus.queue_count_out(
  its_queue bigint, n bigint, load bigint, fallen bigint DEFAULT 0
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE many int;
BEGIN
  PERFORM pbus.queue_lock_count(its_queue, 'out');
  UPDATE pbus.dequeued_count SET gone = gone + n, bytes = bytes + load, fell = fell + fallen,
         updates = updates + 1
   WHERE queue_id = its_queue AND generation = (
     SELECT o.generation FROM pbus.dequeued_count o WHERE o.queue_id = its_queue
      ORDER BY o.generation DESC LIMIT 1)
  RETURNING updates INTO many;
  IF many >= 200 THEN
    WITH old AS (DELETE FROM pbus.dequeued_count WHERE queue_id = its_queue AND generation = (
        SELECT o.generation FROM pbus.dequeued_count o WHERE o.queue_id = its_queue
         ORDER BY o.generation DESC LIMIT 1) RETURNING *)
    INSERT INTO pbus.dequeued_count (queue_id, generation, gone, bytes, fell)
      SELECT queue_id, generation + 1, gone, bytes, fell FROM old;
  END IF;
END $$;

-- How many messages and bytes a queue holds, as far as is known; NULL where it is not counted.
CREATE OR REPLACE FUNCTION pbus.queue_used(its_queue bigint, OUT messages bigint, OUT bytes bigint)
LANGUAGE sql VOLATILE AS $$
  SELECT i.stored - o.gone, i.bytes - o.bytes
    FROM (SELECT * FROM pbus.enqueued_count WHERE queue_id = its_queue
           ORDER BY generation DESC LIMIT 1) i,
         (SELECT * FROM pbus.dequeued_count WHERE queue_id = its_queue
           ORDER BY generation DESC LIMIT 1) o;
$$;

-- Each session remembers where its scans of a table begin: {when to look at all of it (ms), floor,
-- mark, the mark's transaction, keys ...}. All rows up to the floor are gone, but for those with these
-- keys. A mark becomes the floor when all transactions of its time have ended: none that could have
-- written a row below it is left. All is looked at now and then: others may write where they like.
CREATE OR REPLACE FUNCTION pbus.scan_begin(its_name text) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
  state bigint[] := nullif(current_setting(its_name, true), '');
  now_ms bigint := extract(epoch FROM clock_timestamp()) * 1000;
BEGIN
  IF state[1] > now_ms THEN RETURN state; END IF;
  RETURN ARRAY[now_ms + 30000, -4611686018427387904, -4611686018427387904, 0];
END $$;

-- Whether the mark may become the floor.
CREATE OR REPLACE FUNCTION pbus.scan_is_due(state bigint[]) RETURNS boolean LANGUAGE sql VOLATILE AS $$
  SELECT state[3] > state[2]
     AND pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= state[4];
$$;

-- Make the mark the floor, where `keys` are those of the rows up to it, in order, and one more than
-- may be remembered where there are too many.
CREATE OR REPLACE FUNCTION pbus.scan_advance(state bigint[], keys bigint[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN cardinality(keys) > 500
    THEN ARRAY[state[1], keys[501] - 1, keys[501] - 1, 0] || keys[1:500]
    ELSE ARRAY[state[1], state[3], state[3], 0] || keys END;
$$;

-- Remember the state, with a new mark where there is none and the floor is far behind.
CREATE OR REPLACE FUNCTION pbus.scan_end(its_name text, state bigint[], seen bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF state[3] <= state[2] AND seen - state[2] > 200 THEN
    state[3] := seen;
    state[4] := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
  END IF;
  PERFORM set_config(its_name, state::text, false);
END $$;
