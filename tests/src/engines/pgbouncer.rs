//! A `PgBouncer` in front of each node of a test cluster, in session mode.

use std::collections::HashMap;

use crate::engines::agent::Agent;
use crate::engines::place::{Place, free_ports};

/// The variable by which `./test --ha` has every test cluster's application connect through `PgBouncer`.
const VARIABLE: &str = "ROUTING_TESTS_PGBOUNCER";

/// One `PgBouncer` for each node. Dropping it ends them.
#[derive(Debug)]
pub struct PgBouncers {
    agents: Vec<Agent>,
    ports: HashMap<String, u16>,
    _place: Place,
}

impl PgBouncers {
    /// Whether test clusters are to have them.
    #[must_use]
    pub fn are_wanted() -> bool {
        std::env::var_os(VARIABLE).is_some()
    }

    /// Starts one for each of these names and ports. `users` are the lines of its `auth_file`.
    ///
    /// # Panics
    /// When one does not start.
    #[must_use]
    pub fn start(nodes: &[(&str, u16)], users: &str) -> Self {
        let place = Place::new();
        let users = place.file("userlist.txt", users);
        let free = free_ports(u16::try_from(nodes.len()).expect("a small number"));
        let (mut agents, mut ports) = (Vec::new(), HashMap::new());
        for ((name, server), port) in nodes.iter().zip(free) {
            let users = users.display();
            let text = format!(
                "[databases]\napp = host=127.0.0.1 port={server} dbname=app pool_size=90\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 pool_mode = session\nserver_reset_query = DISCARD ALL\nauth_type = scram-sha-256\n\
                 auth_file = {users}\nmax_client_conn = 500\nserver_connect_timeout = 2\nserver_login_retry = 1\n\
                 ignore_startup_parameters = extra_float_digits, options\n"
            );
            let config = place.file(&format!("{name}.ini"), &text);
            agents.push(Agent::start(place.dir(), &format!("{name}.log"), "pgbouncer", [config], &[]));
            ports.insert((*name).to_owned(), port);
        }
        Self { agents, ports, _place: place }
    }

    /// The port in front of a node.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn port(&self, node: &str) -> u16 {
        assert!(!self.agents.is_empty(), "they run");
        *self.ports.get(node).unwrap_or_else(|| panic!("there is no PgBouncer in front of {node}"))
    }
}
