//! So much of one kind of work and nothing else, for a tool that counts instructions: see `scripts/count-instructions`.
//!
//! `routing-core-instructions decide NODES BALANCER TOKEN TIMES` or `routing-core-instructions classify TEXT TIMES`

use std::hint::black_box;

use routing_core::balance::{LeastInFlight, PowerOfTwoChoices, Random, RoundRobin, Weighted};
use routing_core::sql::classify;
use routing_core::testing::Decisions;

fn decide(nodes: u16, balancer: &str, with_token: bool, times: u32) {
    // The same choices each time.
    fastrand::seed(1);
    let decisions = match balancer {
        "least-in-flight" => Decisions::on(nodes, LeastInFlight::default()),
        "power-of-two-choices" => Decisions::on(nodes, PowerOfTwoChoices::default()),
        "round-robin" => Decisions::on(nodes, RoundRobin::default()),
        "random" => Decisions::on(nodes, Random::default()),
        "weighted" => Decisions::on(nodes, Weighted::default()),
        other => panic!("{other} is no balancer"),
    };
    let reader = decisions.reader(with_token);
    for _ in 0..times {
        black_box(reader.decide());
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["decide", nodes, balancer, token, times] => {
            let nodes = nodes.parse().expect("NODES is a number");
            decide(nodes, balancer, token == "token", times.parse().expect("TIMES is a number"));
        }
        ["classify", text, times] => {
            for _ in 0..times.parse::<u32>().expect("TIMES is a number") {
                black_box(classify(black_box(text)));
            }
        }
        _ => panic!("usage: instructions decide NODES BALANCER TOKEN TIMES | classify TEXT TIMES"),
    }
}
