//! The phases of the test.

use std::time::Duration;

use goose::GooseError;
use goose::config::GooseConfiguration;
use goose::metrics::GooseMetrics;
use goose::{GooseAttack, prelude::Scenario};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at};

use crate::users;

/// The phase in which lag is measured.
pub const STEADY: &str = "steady";
/// All of them, in their order.
pub const PHASES: [Phase; 3] = [
    Phase { name: "ramp", factor: 1, half: true, ramps: true },
    Phase { name: STEADY, factor: 1, half: false, ramps: false },
    Phase { name: "spike", factor: 3, half: true, ramps: false },
];

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// Its name.
    pub name: &'static str,
    /// Its users, in multiples of the steady phase's.
    factor: usize,
    /// Whether it takes half of the steady phase's time.
    half: bool,
    /// Whether its users come one after the other over its whole time; else all at once.
    ramps: bool,
}

impl Phase {
    /// Its users.
    pub fn users(&self, steady: usize) -> usize {
        steady * self.factor
    }

    /// Its time.
    pub fn seconds(&self, steady: u64) -> u64 {
        if self.half { steady.div_ceil(2) } else { steady }
    }

    /// Runs it against the server at this address.
    pub async fn run(
        &self,
        address: &str,
        users: usize,
        seconds: u64,
        report: String,
    ) -> Result<GooseMetrics, GooseError> {
        let seconds = self.seconds(seconds);
        let mut config = GooseConfiguration::default();
        config.host = Some(format!("http://{address}"));
        config.users = Some(self.users(users));
        if self.ramps {
            config.increase_time = Some(seconds.to_string());
            config.run_time = Some("1".to_owned());
        } else {
            config.increase_rate = Some("1000".to_owned());
            config.run_time = Some(seconds.to_string());
        }
        config.report_file = vec![report];
        config.quiet = 1;
        config.no_print_metrics = true;
        config.no_telnet = true;
        // While users come is a part of it.
        config.no_reset_metrics = true;
        let scenario: Scenario = users::scenario()?;
        GooseAttack::initialize_with_config(config)?.register_scenario(scenario).execute().await
    }

    /// Says on standard error how far it is.
    pub fn progress(&self, seconds: u64, side: &'static str) -> JoinHandle<()> {
        let (name, all, began) = (self.name, self.seconds(seconds), Instant::now());
        tokio::spawn(async move {
            let every = Duration::from_secs(5);
            let mut tick = interval_at(began + every, every);
            loop {
                tick.tick().await;
                eprintln!("{name}, {side}: {} of {all} s", began.elapsed().as_secs());
            }
        })
    }
}
