-- Removes all that a channel keeps, unless processes use it; whether it did.
CREATE OR REPLACE FUNCTION pbus.channel_erase(ch text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE x record;
BEGIN
  IF EXISTS (SELECT FROM pbus.lease WHERE channel = ch AND ends_at > clock_timestamp())
     OR EXISTS (SELECT FROM pbus.record WHERE channel = ch AND ends_at > clock_timestamp()) THEN
    RETURN false;
  END IF;
  FOR x IN SELECT id FROM pbus.queue WHERE channel = ch LOOP
    PERFORM pbus.queue_remove(x.id);
  END LOOP;
  DELETE FROM pbus.stream_payload WHERE peer = ANY(ARRAY(SELECT id FROM pbus.peer WHERE channel = ch));
  FOR x IN SELECT c.relname AS it FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = 'pbus'::regnamespace AND c.relkind = 'r' AND a.attname = 'channel'
  LOOP
    EXECUTE format('DELETE FROM pbus.%I WHERE channel = $1', x.it) USING ch;
  END LOOP;
  RETURN true;
END $$;
