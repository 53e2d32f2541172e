//! Making nodes: a primary from nothing, replicas from a base backup of it.

use std::{fs, io, os::unix::fs::DirBuilderExt as _, path::Path, time::Duration};

use crate::{
    access::Access,
    archive::Archive,
    command::{CommandError, Tools, run},
    credentials::{DATABASE, Login, Passwords, REPLICATOR, write_secret},
    layout::Layout,
    link::read_unlinked,
    node::NodeRecord,
    ports::Reservation,
    server::{self, ServerError},
    settings::{Setting, node_settings, override_with, quote, render, shared_settings},
    sql::{Session, SqlError},
    standby::STREAMING,
    template::Template,
};

/// `initdb` writes a thousand small files; on a slow disk that takes a while.
const INITDB: Duration = Duration::from_secs(120);
/// One statement of the set-up: a new database is a copy, on a slow disk of some seconds.
const SET_UP: Duration = Duration::from_secs(60);
/// Our configuration file inside a data directory, included by `postgresql.conf`.
const CONFIGURATION: &str = "cluster.conf";

/// Why a node could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// A file of the node could not be written.
    #[error("could not {doing} {node}")]
    Files {
        /// What was tried.
        doing: &'static str,
        /// The node.
        node: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A program of PostgreSQL failed.
    #[error("could not {doing} {node}")]
    Program {
        /// What was tried.
        doing: &'static str,
        /// The node.
        node: String,
        /// What the program said.
        source: CommandError,
    },
    /// The server did not start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A statement failed.
    #[error("could not set up {node}")]
    Sql {
        /// The node.
        node: String,
        /// The server's answer.
        source: SqlError,
    },
    /// The standby started but does not stream.
    #[error("{node} does not stream after {} s: the primary reports {sender}, the replica {receiver}; see {log}", STREAMING.as_secs())]
    NotStreaming {
        /// The node.
        node: String,
        /// The state that the primary reports.
        sender: String,
        /// The state that the replica reports.
        receiver: String,
        /// The replica's log file.
        log: String,
    },
    /// The standby was told whom to follow but does not receive that node's timeline.
    #[error(
        "{node} does not follow {upstream}: it receives timeline {received} (0 is nothing) instead of {timeline}; see {log}"
    )]
    NotFollowing {
        /// The node.
        node: String,
        /// The node that it should stream from.
        upstream: String,
        /// The timeline of that node.
        timeline: i32,
        /// The timeline that the standby receives; 0 when it receives nothing.
        received: i32,
        /// The standby's log file.
        log: String,
    },
}

/// What making any node of one cluster needs.
#[derive(Debug)]
pub(crate) struct Provision<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) tools: &'a Tools,
    pub(crate) passwords: &'a Passwords,
    pub(crate) ports: &'a Reservation,
    pub(crate) access: &'a Access,
    pub(crate) archive: Option<&'a Archive>,
    pub(crate) durable: bool,
    /// What a new primary begins with instead of nothing.
    pub(crate) template: Option<&'a Template>,
}

impl Provision<'_> {
    /// Makes and starts a primary with its roles and the application's database.
    pub(crate) async fn primary(&self, node: &NodeRecord) -> Result<(), ProvisionError> {
        self.node_dir(node).map_err(files("create the directory of", node))?;
        match self.template {
            Some(template) => template.fill(self.tools, node).map_err(files("copy the template to", node))?,
            None => self.initdb(node).await?,
        }
        self.configure(node, true).map_err(files("write the configuration of", node))?;
        self.start(node).await?;
        if self.template.is_some() {
            return Ok(());
        }
        self.roles(node).await.map_err(|source| ProvisionError::Sql { node: node.name.clone(), source })
    }

    pub(crate) async fn start(&self, node: &NodeRecord) -> Result<(), ProvisionError> {
        self.certify(node).map_err(files("write the certificate of", node))?;
        self.ports.release(node.port);
        Ok(server::start(self.tools, node, &self.passwords.credentials(Login::Superuser)).await?)
    }

    pub(crate) fn node_dir(&self, node: &NodeRecord) -> io::Result<()> {
        let dir = self.layout.node_dir(&node.name);
        make_private_dir(self.tools, &dir)
    }

    async fn initdb(&self, node: &NodeRecord) -> Result<(), ProvisionError> {
        // Beside the node, not in it: its directory belongs to the servers' user, who could put a link there.
        let password_file = self.layout.dir().join("superuser.pass");
        let superuser = self.passwords.credentials(Login::Superuser);
        write_secret(&password_file, &superuser.password)
            .and_then(|()| self.tools.account().own_path(&password_file))
            .map_err(files("hand the superuser's password to", node))?;
        let mut command = self.tools.command("initdb");
        // The C locale sorts alike on every node and every system; SQL can still name a collation.
        command.args(["--encoding", "UTF8", "--locale", "C", "--data-checksums", "--auth", "scram-sha-256"]);
        command.args(["--username", &superuser.user]).arg("--pwfile").arg(&password_file);
        command.arg("--pgdata").arg(&node.data_dir);
        if !self.durable {
            command.args(["--no-sync", "--wal-segsize", "1"]);
        }
        let made = run(command, INITDB).await;
        // The server has stored what it needs, and the file goes in any case.
        let removed = fs::remove_file(&password_file);
        made.map_err(|source| ProvisionError::Program { doing: "create", node: node.name.clone(), source })?;
        removed.map_err(files("remove the password file of", node))
    }

    /// Writes the node's configuration; a base backup has brought the primary's.
    pub(crate) fn configure(&self, node: &NodeRecord, first: bool) -> io::Result<()> {
        self.configure_with(node, first, Vec::new())
    }

    /// The same with settings that are there for a while.
    pub(crate) fn configure_with(
        &self,
        node: &NodeRecord,
        first: bool,
        passing: Vec<Setting>,
    ) -> io::Result<()> {
        let socket_dir = self.layout.socket_dir();
        if let Some(dir) = &socket_dir {
            make_private_dir(self.tools, dir)?;
        }
        let mut settings = shared_settings(self.durable);
        override_with(&mut settings, self.access.settings());
        settings.extend(node_settings(&node.name, node.port, socket_dir.as_deref()));
        settings.extend(self.archive.map_or_else(Vec::new, |it| it.settings(self.layout.dir())));
        override_with(&mut settings, passing);
        let head =
            "# Written when the node was made. Change settings with ALTER SYSTEM, which comes after this.\n";
        self.tools
            .account()
            .write(&node.data_dir.join(CONFIGURATION), &format!("{head}{}", render(&settings)))?;
        if first {
            let main = node.data_dir.join("postgresql.conf");
            let text = read_unlinked(&main)?;
            let include = format!("\ninclude '{CONFIGURATION}'\n");
            if !text.ends_with(&include) {
                self.tools.account().write(&main, &format!("{text}{include}"))?;
            }
            self.tools.account().write(&node.data_dir.join("pg_hba.conf"), &self.access.rules())?;
        }
        Ok(())
    }

    /// The roles have the least that they need: nobody connects anywhere by default.
    async fn roles(&self, node: &NodeRecord) -> Result<(), SqlError> {
        let superuser = self.passwords.credentials(Login::Superuser);
        let (application, monitor) = (Login::Application.user(), Login::Monitor.user());
        let role = |login: Login| quote(&self.passwords.credentials(login).password);
        let session = Session::connect(node.port, &superuser, SET_UP).await?;
        // A failed statement would otherwise stand in the log, with its password.
        session
            .run("quieten the log", "SET log_statement = 'none'; SET log_min_error_statement = 'panic'")
            .await?;
        let roles = format!(
            "CREATE ROLE {REPLICATOR} LOGIN REPLICATION PASSWORD {};
             CREATE ROLE {monitor} LOGIN PASSWORD {} IN ROLE pg_monitor;
             CREATE ROLE {application} LOGIN PASSWORD {};",
            quote(self.passwords.replicator()),
            role(Login::Monitor),
            role(Login::Application),
        );
        session.run("create the roles", &roles).await?;
        // Not one batch: a database is not created inside a transaction.
        let create = format!("CREATE DATABASE {DATABASE} OWNER {application}");
        session.run("create the application's database", &create).await?;
        let grants = format!(
            "REVOKE ALL ON DATABASE {DATABASE}, postgres, template1 FROM PUBLIC;
             GRANT CONNECT ON DATABASE {DATABASE} TO {monitor};"
        );
        session.run("restrict who connects", &grants).await?;
        let inside = crate::Credentials { database: DATABASE.to_owned(), ..superuser };
        let session = Session::connect(node.port, &inside, SET_UP).await?;
        // The default since PostgreSQL 15, brought to 14: tables are the owner's to create.
        let schema = format!(
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT ALL ON SCHEMA public TO {application}"
        );
        session.run("restrict who creates tables", &schema).await
    }
}

/// A directory that only the servers' user may look into.
fn make_private_dir(tools: &Tools, dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    tools.account().own_path(dir)
}

pub(crate) fn files(doing: &'static str, node: &NodeRecord) -> impl FnOnce(io::Error) -> ProvisionError {
    let node = node.name.clone();
    move |source| ProvisionError::Files { doing, node, source }
}
