//! The configuration file of one Patroni node.

use std::path::Path;

/// What differs between nodes and between clusters.
pub(crate) struct Node<'a> {
    pub(crate) name: &'a str,
    pub(crate) port: u16,
    pub(crate) rest: u16,
    pub(crate) etcd: u16,
    pub(crate) dir: &'a Path,
    pub(crate) programs: &'a str,
    pub(crate) password: &'a str,
    pub(crate) failsafe: bool,
    pub(crate) noloadbalance: bool,
}

/// Times as short as Patroni takes them: it refuses a `ttl` below 20 s.
pub(crate) fn text(node: &Node<'_>) -> String {
    let Node { name, port, rest, etcd, programs, password, failsafe, noloadbalance, .. } = node;
    let dir = node.dir.display();
    format!(
        r"scope: lab
namespace: /svc/
name: {name}
restapi: {{listen: '127.0.0.1:{rest}', connect_address: '127.0.0.1:{rest}'}}
etcd3: {{host: '127.0.0.1:{etcd}'}}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    maximum_lag_on_failover: 16777216
    failsafe_mode: {failsafe}
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        wal_keep_size: 64MB
        wal_log_hints: 'on'
        max_connections: 200
        hot_standby: 'on'
        hot_standby_feedback: 'on'
        wal_receiver_timeout: 5s
        wal_sender_timeout: 5s
        wal_retrieve_retry_interval: 200ms
  initdb: [{{encoding: UTF8}}, {{locale: C}}, no-sync, {{wal-segsize: '1'}}, {{auth-host: scram-sha-256}}, {{auth-local: trust}}]
postgresql:
  listen: 127.0.0.1:{port}
  connect_address: 127.0.0.1:{port}
  bin_dir: {programs}
  data_dir: {dir}/{name}
  pgpass: {dir}/{name}.pass
  basebackup: [{{checkpoint: fast}}, no-sync, no-manifest]
  authentication:
    superuser: {{username: postgres, password: {password}}}
    replication: {{username: replicator, password: {password}}}
    rewind: {{username: rewinder, password: {password}}}
  parameters:
    unix_socket_directories: {dir}
    routing.node: {name}
    fsync: 'off'
    shared_buffers: 16MB
    dynamic_shared_memory_type: mmap
    max_wal_size: 64MB
    min_wal_size: 32MB
    log_line_prefix: '%n [%p] %q%u@%d '
  pg_hba:
    - local all all trust
    - host replication replicator 127.0.0.1/32 scram-sha-256
    - host all all 127.0.0.1/32 scram-sha-256
tags: {{noloadbalance: {noloadbalance}}}
"
    )
}
