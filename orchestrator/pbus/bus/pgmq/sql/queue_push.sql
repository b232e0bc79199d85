-- Handing over: a message for a mailbox that one process alone takes from, and has emptied, goes to
-- it with the notification, held as if it had been taken. So it need not ask.

-- Who takes alone. After a crash of the server they say so again.
CREATE UNLOGGED TABLE IF NOT EXISTS pbus.push_consumer (
  queue_id bigint PRIMARY KEY, channel text NOT NULL, consumer text NOT NULL, notify_channel text NOT NULL,
  held_s float8 NOT NULL, ends_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- From now on these mailboxes, and no others, are what a holder wants to have messages of.
CREATE OR REPLACE FUNCTION pbus.queue_subscribe_push(
  ch text, who text, its_channel text, names text[], hold_s float8
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM pbus.push_consumer w WHERE w.channel = ch AND w.consumer = who
     AND NOT (SELECT m.name FROM pbus.queue m WHERE m.id = w.queue_id) = ANY(names);
  INSERT INTO pbus.push_consumer AS w
    SELECT m.id, ch, who, its_channel, hold_s, clock_timestamp() + hold_s * interval '1 s'
      FROM pbus.queue m WHERE m.channel = ch AND m.name = ANY(names) AND NOT m.is_shared
     ORDER BY m.id FOR KEY SHARE
    ON CONFLICT (queue_id) DO UPDATE SET consumer = excluded.consumer, notify_channel = excluded.notify_channel,
      held_s = excluded.held_s, ends_at = excluded.ends_at;
END $$;

-- An insert into a queue, planned once a session.
CREATE OR REPLACE FUNCTION pbus.queue_build_put(base text) RETURNS void LANGUAGE plpgsql AS $build$
BEGIN
  EXECUTE format($sql$
    CREATE OR REPLACE FUNCTION pbus.%I(
      its_lane text, messages jsonb, headers jsonb, hidden_s float8
    ) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
      id bigint; reads int := CASE WHEN hidden_s > 0 THEN 1 ELSE 0 END;
      free_at timestamptz := clock_timestamp() + hidden_s * interval '1 s';
    BEGIN
      IF its_lane = 's' THEN
        INSERT INTO pgmq.%I (vt, read_ct, message, headers)
          VALUES (free_at, reads, messages, headers) RETURNING msg_id INTO id;
      ELSE
        INSERT INTO pgmq.%I (vt, read_ct, message, headers)
          VALUES (free_at, reads, messages, headers) RETURNING msg_id INTO id;
      END IF;
      RETURN id;
    END $$ $sql$, 'put_' || base, 'q_' || base || '_s', 'q_' || base || '_d');
END $build$;

-- Whether an entry was handed over; used: the mailbox's backlog before. Nothing may be overtaken,
-- so all of that has to be with the same holder. One who takes just now gets it by taking.
CREATE OR REPLACE FUNCTION pbus.queue_push(
  ch text, its_queue bigint, base text, dest text, its_lane text, messages jsonb, headers jsonb,
  used bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  w record; id bigint; its_hold bigint := (random() * 9007199254740991)::bigint; held bigint;
  scan text; state bigint[];
BEGIN
  SELECT x.consumer, x.notify_channel, x.held_s INTO w FROM pbus.push_consumer x
    CROSS JOIN LATERAL (
      SELECT FROM pbus.consumer h WHERE h.channel = ch AND h.name = x.consumer
         AND NOT h.is_dead AND h.ends_at > clock_timestamp() FOR SHARE SKIP LOCKED) h
   WHERE x.queue_id = its_queue AND x.ends_at > clock_timestamp();
  IF NOT FOUND THEN RETURN false; END IF;
  scan := 'pbus.held_' || md5(w.consumer) || '_' || replace(its_queue::text, '-', '_');
  state := pbus.scan_begin(scan);
  IF pbus.scan_is_due(state) THEN
    state := pbus.scan_advance(state, ARRAY(
      SELECT d.seq FROM pbus.in_flight d WHERE d.channel = ch AND d.consumer = w.consumer
         AND d.seq = ANY(state[5:]) AND d.queue_id = its_queue
      UNION ALL
      SELECT d.seq FROM pbus.in_flight d WHERE d.channel = ch AND d.consumer = w.consumer
         AND d.seq > state[2] AND d.seq <= state[3] AND d.queue_id = its_queue
      ORDER BY 1 LIMIT 501));
  END IF;
  SELECT sum(d.size - cardinality(d.gone)) INTO held FROM (
    SELECT d.size, d.gone FROM pbus.in_flight d WHERE d.channel = ch AND d.consumer = w.consumer
       AND d.seq = ANY(state[5:]) AND d.queue_id = its_queue
    UNION ALL
    SELECT d.size, d.gone FROM pbus.in_flight d WHERE d.channel = ch AND d.consumer = w.consumer
       AND d.seq > state[2] AND d.queue_id = its_queue) d;
  PERFORM pbus.scan_end(scan, state, pg_sequence_last_value('pbus.in_flight_seq_seq'));
  IF used <> coalesce(held, 0) THEN RETURN false; END IF;
  IF octet_length(messages::text) + octet_length(dest) > 7700 OR EXISTS (
    SELECT FROM jsonb_array_elements(messages) p
     WHERE (SELECT true FROM pbus.handled d WHERE d.queue_id = its_queue AND d.id = p->>0)) THEN
    RETURN false;
  END IF;
  EXECUTE format('SELECT pbus.%I($1, $2, $3, $4)', 'put_' || base)
    INTO id USING its_lane, messages, headers, w.held_s * 2;
  INSERT INTO pbus.in_flight (hold, queue_id, lane, msg_id, channel, consumer, held_at, size, gone, started, bytes)
    VALUES (its_hold, its_queue, its_lane, id, ch, w.consumer, clock_timestamp(),
            jsonb_array_length(messages), '{}', '{}', pbus.queue_entry_bytes(headers));
  PERFORM pg_notify(w.notify_channel, jsonb_build_array(
    its_hold, its_queue, dest, its_lane, headers || jsonb_build_object('i', id), messages)::text);
  RETURN true;
END $$;
