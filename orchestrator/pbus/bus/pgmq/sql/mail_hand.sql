-- Handing over: a letter for a mailbox that one process alone takes from, and has emptied, goes to
-- it with the notification, held as if it had been taken. So it need not ask.

-- Who takes alone. After a crash of the server they say so again.
CREATE UNLOGGED TABLE IF NOT EXISTS pbus.waiter (
  mailbox bigint PRIMARY KEY, channel text NOT NULL, holder text NOT NULL, bell text NOT NULL,
  held_s float8 NOT NULL, ends_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- From now on these mailboxes, and no others, are what a holder wants to have letters of.
CREATE OR REPLACE FUNCTION pbus.mail_wait(
  ch text, who text, its_bell text, names text[], hold_s float8
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM pbus.waiter w WHERE w.channel = ch AND w.holder = who
     AND NOT (SELECT m.name FROM pbus.mailbox m WHERE m.id = w.mailbox) = ANY(names);
  INSERT INTO pbus.waiter AS w
    SELECT m.id, ch, who, its_bell, hold_s, clock_timestamp() + hold_s * interval '1 s'
      FROM pbus.mailbox m WHERE m.channel = ch AND m.name = ANY(names) AND NOT m.is_shared
     ORDER BY m.id FOR KEY SHARE
    ON CONFLICT (mailbox) DO UPDATE SET holder = excluded.holder, bell = excluded.bell,
      held_s = excluded.held_s, ends_at = excluded.ends_at;
END $$;

-- An insert into a queue, planned once a session.
CREATE OR REPLACE FUNCTION pbus.mail_build_put(queue text) RETURNS void LANGUAGE plpgsql AS $build$
BEGIN
  EXECUTE format($sql$
    CREATE OR REPLACE FUNCTION pbus.%I(
      its_lane text, letters jsonb, heads jsonb, hidden_s float8
    ) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
      id bigint; reads int := CASE WHEN hidden_s > 0 THEN 1 ELSE 0 END;
      free_at timestamptz := clock_timestamp() + hidden_s * interval '1 s';
    BEGIN
      IF its_lane = 's' THEN
        INSERT INTO pgmq.%I (vt, read_ct, message, headers)
          VALUES (free_at, reads, letters, heads) RETURNING msg_id INTO id;
      ELSE
        INSERT INTO pgmq.%I (vt, read_ct, message, headers)
          VALUES (free_at, reads, letters, heads) RETURNING msg_id INTO id;
      END IF;
      RETURN id;
    END $$ $sql$, 'put_' || queue, 'q_' || queue || '_s', 'q_' || queue || '_d');
END $build$;

-- Whether an entry was handed over; used: the mailbox's backlog before. Nothing may be overtaken,
-- so all of that has to be with the same holder. One who takes just now gets it by taking.
CREATE OR REPLACE FUNCTION pbus.mail_hand(
  ch text, box bigint, queue text, dest text, its_lane text, letters jsonb, heads jsonb, used bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  w record; id bigint; its_hold bigint := (random() * 9007199254740991)::bigint;
BEGIN
  SELECT x.holder, x.bell, x.held_s INTO w FROM pbus.waiter x
    CROSS JOIN LATERAL (
      SELECT FROM pbus.holder h WHERE h.channel = ch AND h.name = x.holder
         AND NOT h.is_dead AND h.ends_at > clock_timestamp() FOR SHARE SKIP LOCKED) h
   WHERE x.mailbox = box AND x.ends_at > clock_timestamp() AND used = (SELECT coalesce(sum(d.size - cardinality(d.gone)), 0) FROM pbus.held d
                  WHERE d.channel = ch AND d.holder = x.holder AND d.mailbox = box);
  IF NOT FOUND THEN RETURN false; END IF;
  IF octet_length(letters::text) + octet_length(dest) > 7700 OR EXISTS (
    SELECT FROM jsonb_array_elements(letters) p
     WHERE (SELECT true FROM pbus.handled d WHERE d.mailbox = box AND d.id = p->>0)) THEN
    RETURN false;
  END IF;
  EXECUTE format('SELECT pbus.%I($1, $2, $3, $4)', 'put_' || queue)
    INTO id USING its_lane, letters, heads, w.held_s * 2;
  INSERT INTO pbus.held (hold, mailbox, lane, msg_id, channel, holder, held_at, size, gone, started, bytes)
    VALUES (its_hold, box, its_lane, id, ch, w.holder, clock_timestamp(),
            jsonb_array_length(letters), '{}', '{}', pbus.mail_weight(heads));
  PERFORM pg_notify(w.bell, jsonb_build_array(
    its_hold, box, dest, its_lane, heads || jsonb_build_object('i', id), letters)::text);
  RETURN true;
END $$;
