//! What is run, and how often.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::draw::{crowd, schedule};
use super::mutant::Mutant;
use super::run::run;
use super::schedule::Schedule;
use super::shrink::shrink;

/// Schedules that `./test` runs. Parts of them are tests of their own, so that they run beside each other.
const SCHEDULES: u64 = 10_000;
const PARTS: u64 = 8;

/// Seeds within which each missing mechanism must be noticed.
const NOTICED_WITHIN: u64 = 1_000;

/// Broken promises that are told at most; the first is shrunk.
const TOLD: usize = 20;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// What a person needs who looks at a schedule that breaks a promise: the smallest one found that still does, and its trace.
fn report(whole: &Schedule) -> String {
    let seed = whole.seed;
    let Some(found) = run(whole, None, false).first().cloned() else {
        return format!("seed {seed} breaks no promise");
    };
    let small = shrink(whole, found.promise, None);
    let outcome = run(&small, None, true);
    let mut text =
        format!("seed {seed} breaks a promise:\n{found}\n\ntrace of the shrunk schedule:\n{}", outcome.trace);
    let _ = writeln!(text, "\nshrunk schedule:\n{small}\nit breaks:");
    for violation in &outcome.violations {
        let _ = writeln!(text, "{violation}");
    }
    let _ = writeln!(text, "SIMULATION_SEED={seed} prints the trace of the whole.");
    text
}

/// One seed, with its trace.
fn show(seed: u64) {
    let whole = schedule(seed);
    let outcome = run(&whole, None, true);
    eprintln!("{whole}\n{}", outcome.trace);
    assert!(outcome.violations.is_empty(), "{}", report(&whole));
}

/// Every `PARTS`th schedule.
fn part(part: u64) {
    if let Some(seed) = number("SIMULATION_SEED") {
        if part == 1 {
            show(seed);
        }
        return;
    }
    let schedules = number("SIMULATION_SCHEDULES").unwrap_or(SCHEDULES);
    let (began, mut count, mut statements) = (SystemTime::now(), 0_u32, 0);
    let mut broken = Vec::new();
    for seed in (part - 1..schedules).step_by(PARTS as usize) {
        let outcome = run(&schedule(seed), None, false);
        count += 1;
        statements += outcome.statements;
        broken.extend(outcome.first().map(|found| (seed, found.clone())));
        if broken.len() == TOLD {
            break;
        }
    }
    let took = began.elapsed().unwrap_or_default().as_secs_f64();
    let speed = f64::from(count) / took.max(0.001);
    eprintln!(
        "count | simulation | part {part} of {PARTS} | {count} schedules, {statements} statements, {speed:.0} schedules/s"
    );
    let Some((first, _)) = broken.first() else { return };
    let told: String = broken.iter().map(|(seed, found)| format!("seed {seed}: {found}\n")).collect();
    panic!("{told}{}", report(&schedule(*first)));
}

macro_rules! parts {
    ($($name:ident: $number:literal,)*) => {
        $(
            #[test]
            fn $name() {
                part($number);
            }
        )*
    };
}

parts! {
    no_schedule_breaks_a_promise_part_1: 1,
    no_schedule_breaks_a_promise_part_2: 2,
    no_schedule_breaks_a_promise_part_3: 3,
    no_schedule_breaks_a_promise_part_4: 4,
    no_schedule_breaks_a_promise_part_5: 5,
    no_schedule_breaks_a_promise_part_6: 6,
    no_schedule_breaks_a_promise_part_7: 7,
    no_schedule_breaks_a_promise_part_8: 8,
}

#[test]
fn no_crowd_of_thousands_breaks_a_promise() {
    for seed in 0..4 {
        let schedule = crowd(seed, 2_000);
        let outcome = run(&schedule, None, false);
        assert!(outcome.violations.is_empty(), "{}", report(&schedule));
        assert!(outcome.statements > 2_000, "{} statements", outcome.statements);
    }
}

#[test]
fn the_same_seed_gives_the_same_run_to_the_byte() {
    for seed in 0..40 {
        let schedule = schedule(seed);
        let (one, two) = (run(&schedule, None, true).trace, run(&schedule, None, true).trace);
        assert!(one.lines().count() > 100, "seed {seed} has no trace");
        let differing = one.lines().zip(two.lines()).find(|(one, two)| one != two);
        assert!(one == two, "seed {seed} gives two runs: {differing:?}");
    }
    assert_ne!(run(&schedule(1), None, true).trace, run(&schedule(2), None, true).trace);
}

#[test]
fn every_mechanism_that_is_missing_is_noticed() {
    let mut unnoticed = Vec::new();
    for (mutant, promise) in Mutant::ALL {
        let breaks = |seed: &u64| {
            run(&schedule(*seed), Some(mutant), false).violations.iter().any(|found| found.promise == promise)
        };
        match (0..NOTICED_WITHIN).find(breaks) {
            Some(seed) => {
                eprintln!("count | simulation | {mutant:?} | {promise} breaks first with seed {seed}")
            }
            None => unnoticed.push(mutant),
        }
    }
    assert!(unnoticed.is_empty(), "no schedule notices that these are missing: {unnoticed:?}");
}

#[test]
fn a_schedule_that_breaks_a_promise_shrinks_to_one_that_still_does() {
    let (mutant, promise) = Mutant::ALL[2];
    let breaks = |schedule: &Schedule| {
        run(schedule, Some(mutant), false).violations.iter().any(|found| found.promise == promise)
    };
    let whole = (0..NOTICED_WITHIN).map(schedule).find(breaks).expect("a schedule that breaks it");
    let small = shrink(&whole, promise, Some(mutant));
    let requests = |schedule: &Schedule| schedule.clients.iter().map(Vec::len).sum::<usize>();
    assert!(breaks(&small), "{small}");
    assert!(requests(&small) * 4 <= requests(&whole), "{small}");
    assert!(small.steps.len() <= 3, "{small}");
}
