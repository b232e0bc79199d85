-- What processes call does its work with the rights of its owner: a role that may use the schema
-- needs no right to make queues, nor on their tables. Its own search path means nothing.
DO $$
DECLARE x record;
BEGIN
  FOR x IN SELECT p.oid::regprocedure AS it FROM pg_catalog.pg_proc p
            WHERE p.pronamespace = 'pbus'::regnamespace AND p.prokind = 'f' AND p.proname = ANY ('{
              activation_set,channel_erase,lease_bodies,lease_claim,lease_evict,lease_keep,lease_release,
              lease_renew,record_drop,record_put,records,mail_drop_dead,mail_finish,mail_mend,mail_open,mail_purge,mail_put,mail_put_one,
              mail_read,mail_refuse,mail_reports,mail_requeue,mail_revive,mail_settle,mail_started,
              mail_take,mail_tidy,mail_touch,mail_wait,wire_join,wire_leave,wire_put,wire_read,
              wire_tidy}')
  LOOP
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, pg_temp', x.it);
  END LOOP;
END $$;
