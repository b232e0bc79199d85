-- What processes call does its work with the rights of its owner: a role that may use the schema
-- needs no right to make queues, nor on their tables. Its own search path means nothing.
DO $$
DECLARE x record;
BEGIN
  FOR x IN SELECT p.oid::regprocedure AS it FROM pg_catalog.pg_proc p
            WHERE p.pronamespace = 'pbus'::regnamespace AND p.prokind = 'f' AND p.proname = ANY ('{
              activation_set,channel_erase,lease_bodies,lease_claim,lease_evict,lease_extend,lease_release,
              lease_renew,record_drop,record_put,records,stats_put,stats_read,queue_drop_dead,queue_delete_settled,queue_repair,queue_open,queue_purge_whole,queue_purge_at_once,queue_purge_some,queue_remove_empty,queue_put,queue_put_one,
              queue_read_message,queue_dead_letter_foreign,queue_stats,queue_requeue_held_by,queue_requeue_dead,queue_settle,queue_mark_started,
              queue_fetch,queue_tidy,queue_renew,queue_subscribe_push,stream_join,stream_leave,stream_put,stream_read,
              stream_tidy}')
  LOOP
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, pg_temp', x.it);
  END LOOP;
END $$;
