-- The roles, each with the least it needs. Run it once, on the primary, as the superuser:
--
--   psql -X -v ON_ERROR_STOP=1 -f roles.sql postgres
--
-- (psql 15 or newer) with the passwords in APP_PASSWORD, MONITOR_PASSWORD, REPLICATOR_PASSWORD and REWINDER_PASSWORD
-- of the environment, where no process list shows them. Under Patroni replicator and rewinder are there already, and
-- stay as they are.

\getenv app_password APP_PASSWORD
\getenv monitor_password MONITOR_PASSWORD
\getenv replicator_password REPLICATOR_PASSWORD
\getenv rewinder_password REWINDER_PASSWORD

-- A failed statement would otherwise stand in the log, with its password.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;

-- The application owns its database and nothing beside it.
CREATE ROLE app LOGIN PASSWORD :'app_password' CONNECTION LIMIT 180;
-- The router's probes and the exporter: statistics of all sessions, no table of the application.
CREATE ROLE monitor LOGIN PASSWORD :'monitor_password' IN ROLE pg_monitor CONNECTION LIMIT 15;

SELECT count(*) = 0 AS no_replicator FROM pg_roles WHERE rolname = 'replicator' \gset
\if :no_replicator
-- It streams, and reads all data in doing so; it logs in to no database.
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replicator_password';
\endif
SELECT count(*) = 0 AS no_rewinder FROM pg_roles WHERE rolname = 'rewinder' \gset
\if :no_rewinder
-- It reads every file of the data directory, for pg_rewind on a deposed primary: as secret as the superuser's password.
CREATE ROLE rewinder LOGIN PASSWORD :'rewinder_password';
\endif
-- pg_rewind's four functions (PostgreSQL manual, pg_rewind, Notes). They are granted in the database it connects to.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO rewinder;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO rewinder;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO rewinder;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO rewinder;

CREATE DATABASE app OWNER app;
-- Nobody connects anywhere by default.
REVOKE ALL ON DATABASE app, postgres, template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE app TO monitor;
GRANT CONNECT ON DATABASE postgres TO rewinder;
\connect app
-- The default since PostgreSQL 15, brought to 14: tables are the owner's to create.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO app;
