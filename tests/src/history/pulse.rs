//! Writes that tell the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use routing_cluster::{Credentials, Login};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::cluster::{NODES, TestCluster};
use crate::database::Database;
use crate::history::operation::{Answer, Ask, Key, Operation, Value, WriteForm};
use crate::history::recorder::Recorder;

/// The key that it writes.
pub const PULSE: Key = 0;
/// Between two beats.
const INTERVAL: Duration = Duration::from_millis(5);
/// A beat that takes longer is given up, and so is its connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// Writes the next value of [`PULSE`] every few milliseconds on whichever node takes it, past the router. A read of it
/// is as old as the first value that it misses, and no server's clock has a part in that.
#[derive(Debug)]
pub struct Pulse {
    stop: Arc<AtomicBool>,
    beating: JoinHandle<()>,
}

impl Pulse {
    /// Begins to beat.
    #[must_use]
    pub fn start(cluster: &TestCluster, recorder: Recorder) -> Self {
        let sql = |value| format!("INSERT INTO entry (key, value) VALUES ({PULSE}, {value})");
        Self::start_with(cluster, &NODES, recorder, INTERVAL, sql)
    }

    /// The same on these nodes, with another interval, by a statement that makes a value the newest.
    #[must_use]
    pub fn start_with(
        cluster: &TestCluster,
        nodes: &[&str],
        recorder: Recorder,
        interval: Duration,
        sql: fn(Value) -> String,
    ) -> Self {
        let mut login = cluster.servers().credentials(Login::Application);
        Login::Application.database().clone_into(&mut login.database);
        let ports = nodes.iter().map(|node| cluster.port(node)).collect();
        let stop = Arc::<AtomicBool>::default();
        let beating = tokio::spawn(beat(ports, login, recorder, stop.clone(), interval, sql));
        Self { stop, beating }
    }

    /// Ends after the beat under way.
    ///
    /// # Panics
    /// When it panicked.
    pub async fn stop(self) {
        self.stop.store(true, Relaxed);
        self.beating.await.expect("the pulse does not panic");
    }
}

async fn beat(
    ports: Vec<u16>,
    login: Credentials,
    recorder: Recorder,
    stop: Arc<AtomicBool>,
    interval: Duration,
    sql: fn(Value) -> String,
) {
    let mut ports = ports.into_iter().cycle();
    let mut database = None;
    let mut value: Value = 0;
    while !stop.load(Relaxed) {
        let Some(connected) = &database else {
            if let Some(port) = ports.next()
                && let Ok(Ok(connected)) = timeout(PATIENCE, Database::connect(port, &login)).await
            {
                database = Some(connected);
            }
            sleep(interval).await;
            continue;
        };
        value += 1;
        let invoked = recorder.now();
        let answer = match timeout(PATIENCE, connected.run(&sql(value))).await {
            Ok(Ok(())) => Answer::Written(None),
            Ok(Err(error)) => Answer::Unknown(error.to_string()),
            Err(_) => Answer::Unknown(format!("no answer within {PATIENCE:?}")),
        };
        if answer != Answer::Written(None) {
            database = None;
        }
        recorder.record(Operation {
            client: u32::MAX,
            instance: None,
            invoked,
            completed: recorder.now(),
            presented: Vec::new(),
            asked: Ask::Write { key: PULSE, value, form: WriteForm::Statement },
            answer,
            issued: None,
            served: None,
        });
        sleep(interval).await;
    }
}
