mod scene;

use std::time::Duration;

use super::*;
use crate::decision::Refusal;
use crate::topology::Primary;
use scene::{Scene, follows, ms, orphan, writes};

#[tokio::test(start_paused = true)]
async fn a_replica_behind_a_writing_primary_grows_stale_and_is_let_back_after_two_fresh_probes() {
    let mut scene = Scene::settled();
    for step in 1..=24 {
        scene.answer(0, step * 250, writes(1, 100 + step));
        scene.answer(1, step * 250, follows(0, 1, 100));
    }
    let state = scene.at(6_000).nodes[1].clone();
    assert_eq!(state.staleness(scene.start + ms(6_000)), Some(ms(6_000)));
    assert_eq!(state.lag(scene.start + ms(6_000)), Some(ms(5_750)));
    assert!(state.returning);

    scene.answer(1, 6_100, follows(0, 1, 124));
    assert!(scene.at(6_100).nodes[1].returning, "one fresh probe is not enough");
    scene.answer(1, 6_200, follows(0, 1, 124));
    assert!(!scene.at(6_200).nodes[1].returning);
}

#[tokio::test(start_paused = true)]
async fn an_idle_primary_for_an_hour_raises_no_lag() {
    let mut scene = Scene::settled();
    for second in 1..=3_600 {
        scene.answer(0, second * 1_000, writes(1, 100));
        scene.answer(1, second * 1_000, follows(0, 1, 100));
    }
    let now = scene.start + ms(3_600_100);
    let state = scene.at(3_600_100).nodes[1].clone();
    assert_eq!((state.lag(now), state.staleness(now)), (Some(Duration::ZERO), Some(ms(100))));
    assert_eq!(state.blocked, None);
}

#[tokio::test(start_paused = true)]
async fn without_news_of_the_primary_staleness_grows() {
    let mut scene = Scene::settled();
    scene.fail(0, 1_000);
    scene.answer(1, 9_000, orphan(100));
    let state = scene.at(9_000).nodes[1].clone();
    assert_eq!(state.staleness(scene.start + ms(9_000)), Some(ms(9_000)));
    assert_eq!(state.blocked, None, "it may still serve as the least stale");
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_receiver_is_gone_is_blocked_while_the_primary_lives() {
    let mut scene = Scene::settled();
    scene.answer(1, 250, orphan(100));
    assert_eq!(scene.at(250).nodes[1].blocked, None, "it may have lost its primary: the next answer tells");
    scene.answer(0, 251, writes(1, 100));
    assert_eq!(scene.at(251).nodes[1].blocked, Some(Refusal::NotReceiving));
    scene.answer(1, 500, orphan(100));
    scene.fail(0, 501);
    assert_eq!(scene.at(501).nodes[1].blocked, None, "there is no primary to receive from");
    // One that was restarted without its primary has not shown what it follows.
    scene.answer(0, 600, writes(1, 100));
    scene.fail(2, 610);
    scene.answer(2, 620, orphan(100));
    assert_eq!(scene.at(620).nodes[2].blocked, Some(Refusal::NotReceiving));
}

#[tokio::test(start_paused = true)]
async fn what_a_standby_replays_while_it_receives_nothing_proves_nothing() {
    let mut scene = Scene::settled();
    scene.answer(0, 250, writes(1, 110));
    // It may have followed a successor that nobody here has seen, and lost it.
    scene.answer(1, 300, orphan(120));
    scene.answer(1, 550, orphan(130));
    let state = scene.at(550).nodes[1].clone();
    assert!(state.lineage_proven);
    assert_eq!((state.lsn, state.staleness(scene.start + ms(550))), (Some(Lsn::from(100)), Some(ms(550))));

    scene.answer(1, 800, follows(0, 1, 130));
    assert_eq!(scene.at(800).nodes[1].lsn, Some(Lsn::from(130)));
    scene.answer(1, 900, orphan(130));
    scene.answer(1, 1_000, writes(2, 200));
    assert_eq!(scene.at(1_000).nodes[1].lsn, Some(Lsn::from(200)), "what a primary says is its own");
}

#[tokio::test(start_paused = true)]
async fn a_standby_whose_primary_was_away_is_given_time_to_reconnect() {
    let mut scene = Scene::settled();
    scene.fail(0, 250);
    scene.answer(1, 260, orphan(100));
    scene.answer(2, 260, follows(0, 1, 100));
    scene.answer(0, 400, writes(1, 100));
    let blocked = |scene: &mut Scene, node: usize, at| scene.at(at).nodes[node].blocked.clone();
    assert_eq!(
        blocked(&mut scene, 1, 400),
        None,
        "its primary has come back, and it asks again only after a while"
    );
    scene.answer(2, 410, orphan(100));
    scene.answer(0, 411, writes(1, 100));
    assert_eq!(
        blocked(&mut scene, 2, 411),
        Some(Refusal::NotReceiving),
        "it lost its way while the primary was there"
    );
    assert_eq!(blocked(&mut scene, 1, 5_400), None);
    assert_eq!(blocked(&mut scene, 1, 5_401), Some(Refusal::NotReceiving), "it does not come");
    scene.answer(1, 5_500, follows(0, 1, 110));
    assert_eq!(blocked(&mut scene, 1, 5_500), None);
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_voids_the_position_and_the_second_declares_the_node_lost() {
    let mut scene = Scene::settled();
    assert!(!scene.fail(1, 250).lost);
    let state = scene.at(250).nodes[1].clone();
    assert!(matches!(state.blocked, Some(Refusal::Down { .. })));
    assert_eq!((state.fresh_as_of, state.lsn), (None, None));
    assert!(scene.fail(1, 500).lost);
    assert!(!scene.fail(1, 750).lost, "once for each loss");
}

#[tokio::test(start_paused = true)]
async fn a_promotion_opens_an_epoch_and_fences_the_old_primary() {
    let mut scene = Scene::settled();
    assert_eq!(scene.at(0).lineage.epoch, 1);
    scene.lose_pg1(250);
    assert_eq!(scene.at(250).primary, Primary::Unknown);
    scene.answer(2, 500, orphan(100));
    let effects = scene.answer(1, 500, writes(2, 120));
    assert!(effects.new_epoch);
    let topology = scene.at(500);
    assert_eq!((topology.lineage.epoch, topology.lineage.highest), (2, Some(Timeline(2))));
    assert_eq!(topology.primary().unwrap().node.name(), "pg2");

    scene.answer(0, 750, writes(1, 999));
    let topology = scene.at(750);
    assert_eq!(topology.primary().unwrap().node.name(), "pg2");
    assert_eq!(
        topology.nodes[0].blocked,
        Some(Refusal::Fenced { timeline: Timeline(1), current: Timeline(2) })
    );

    scene.answer(0, 1_000, follows(1, 2, 130));
    assert_eq!(scene.at(1_000).nodes[0].blocked, None, "it follows the new primary now");
}

#[tokio::test(start_paused = true)]
async fn a_successor_is_accepted_once_every_node_that_lives_was_looked_at_again() {
    let mut scene = Scene::settled();
    scene.fail(0, 250);
    scene.answer(2, 300, orphan(100));
    let asked = Effects { successor: true, ..Effects::default() };
    assert_eq!(scene.answer(1, 400, writes(2, 120)), asked);
    assert_eq!(scene.answer(2, 399, orphan(100)), Effects::default(), "that was sent before");
    assert_eq!(scene.answer(2, 410, orphan(100)), Effects::default(), "the old primary may live");
    assert_eq!(scene.at(410).primary, Primary::Unknown);
    let accepted = Effects { new_epoch: true, lost: true, ..Effects::default() };
    assert_eq!(scene.fail(0, 420), accepted);
    assert_eq!(scene.at(420).primary().unwrap().node.name(), "pg2");
}

#[tokio::test(start_paused = true)]
async fn of_two_that_were_promoted_at_once_the_one_that_is_heard_first_gets_nothing() {
    let mut scene = Scene::settled();
    scene.lose_pg1(250);
    scene.answer(1, 300, orphan(100));
    scene.answer(2, 300, orphan(100));
    scene.answer(1, 400, writes(2, 120));
    assert_eq!(scene.at(400).primary, Primary::Unknown);
    scene.answer(2, 401, writes(2, 130));
    let topology = scene.at(401);
    assert!(matches!(&topology.primary, Primary::Ambiguous(claims) if claims.0.len() == 2), "{topology:?}");
    assert_eq!(topology.lineage.epoch, 1);
}

#[tokio::test(start_paused = true)]
async fn a_standby_on_its_way_to_the_new_primary_serves_for_a_moment_unless_it_may_have_more() {
    let mut scene = Scene::settled();
    scene.lose_pg1(250);
    scene.answer(1, 300, orphan(110));
    scene.answer(2, 500, orphan(110));
    scene.answer(1, 500, writes(2, 120));
    let blocked = |scene: &mut Scene, at| scene.at(at).nodes[2].blocked.clone();
    assert_eq!(blocked(&mut scene, 500), None, "it has what the new primary had");
    scene.answer(2, 550, follows(1, 1, 110));
    assert_eq!(
        blocked(&mut scene, 550),
        None,
        "it receives the end of the old timeline from the new primary"
    );
    scene.answer(2, 600, follows(0, 1, 110));
    assert_eq!(blocked(&mut scene, 600), Some(Refusal::OtherTimeline), "it goes on behind the old one");
    scene.answer(2, 650, orphan(111));
    assert_eq!(
        blocked(&mut scene, 650),
        Some(Refusal::NotReceiving),
        "that may be no part of the new timeline"
    );
    scene.answer(2, 700, orphan(110));
    assert_eq!(blocked(&mut scene, 5_500), None);
    assert_eq!(blocked(&mut scene, 5_501), Some(Refusal::NotReceiving), "it does not come");
}

#[tokio::test(start_paused = true)]
async fn the_new_primary_says_itself_where_its_timeline_branched_off() {
    for (recovered_to, expected) in [(110, None), (109, Some(Refusal::NotReceiving))] {
        let mut scene = Scene::settled();
        // The standbys receive the last of the log, and only one of them is looked at after that.
        scene.answer(1, 250, follows(0, 1, 105));
        scene.lose_pg1(300);
        scene.answer(2, 500, orphan(110));
        let promoted = Probe { recovered_to: Some(Lsn::from(recovered_to)), ..writes(2, 120) };
        scene.answer(1, 500, promoted.clone());
        scene.answer(2, 510, orphan(110));
        scene.answer(1, 520, promoted);
        assert_eq!(scene.at(520).lineage.epoch, 2);
        assert_eq!(scene.at(520).nodes[2].blocked, expected, "{recovered_to}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_was_not_seen_as_a_standby_shows_nothing_of_its_past() {
    let mut scene = Scene::settled();
    scene.lose_pg1(250);
    scene.answer(2, 500, orphan(110));
    // It was restarted, and may have come back behind.
    scene.fail(1, 300);
    scene.answer(1, 500, writes(2, 120));
    assert_eq!(scene.at(500).nodes[2].blocked, Some(Refusal::NotReceiving));
}

#[tokio::test(start_paused = true)]
async fn positions_of_an_older_epoch_prove_nothing_about_the_new_one() {
    let mut scene = Scene::settled();
    scene.lose_pg1(250);
    scene.answer(2, 500, orphan(100));
    scene.answer(1, 500, writes(2, 120));
    scene.answer(2, 600, follows(0, 1, 500));
    let state = scene.at(600).nodes[2].clone();
    assert_eq!((state.fresh_as_of, state.lineage_proven), (None, false));
    assert_eq!(state.blocked, Some(Refusal::OtherTimeline));
    assert_eq!(state.last_known_fresh, Some(scene.start));
}

#[tokio::test(start_paused = true)]
async fn samples_of_an_older_epoch_are_forgotten() {
    let mut scene = Scene::settled();
    scene.lose_pg1(250);
    scene.answer(2, 500, orphan(100));
    scene.answer(1, 500, writes(2, 120));
    // It follows the new primary and is past all that the old one was seen to have.
    scene.answer(2, 600, follows(1, 2, 110));
    assert_eq!(scene.at(600).nodes[2].fresh_as_of, None);
    scene.answer(2, 700, follows(1, 2, 120));
    assert_eq!(scene.at(700).nodes[2].fresh_as_of, Some(scene.start + ms(500)));
}

#[tokio::test(start_paused = true)]
async fn a_role_that_may_not_see_the_timeline_proves_lineage_until_the_first_change() {
    let mut scene = Scene::settled();
    let plain = |lsn| Probe { timeline: None, sender: None, wal_receiver_status: None, ..follows(0, 1, lsn) };
    scene.answer(1, 250, plain(100));
    assert!(scene.at(250).nodes[1].lineage_proven);
    scene.lose_pg1(500);
    scene.answer(1, 500, plain(100));
    scene.answer(2, 500, writes(2, 120));
    scene.answer(1, 750, plain(130));
    let state = scene.at(750).nodes[1].clone();
    assert!(!state.lineage_proven);
    assert_eq!(state.blocked, None, "reads without a bound may use it");
}

#[tokio::test(start_paused = true)]
async fn whose_log_a_standby_replays_is_not_proven_by_silence() {
    let mut scene = Scene::settled();
    scene.answer(0, 250, writes(1, 110));
    scene.answer(1, 250, follows(0, 1, 110));
    scene.answer(2, 250, follows(0, 1, 110));
    let proven = |scene: &mut Scene, at, node: usize| {
        let state = scene.at(at).nodes[node].clone();
        (state.lineage_proven, state.fresh_as_of.map(|fresh| fresh - scene.start))
    };
    scene.lose_pg1(500);
    scene.answer(1, 500, orphan(110));
    assert_eq!(proven(&mut scene, 500, 1), (true, Some(ms(250))), "it has received nothing else since");
    // It was started again. Before that it may have followed a primary that was promoted and lost unseen.
    scene.fail(2, 510);
    scene.answer(2, 520, orphan(110));
    assert_eq!(proven(&mut scene, 520, 2), (false, Some(ms(250))));
    scene.answer(2, 530, follows(0, 1, 110));
    assert_eq!(proven(&mut scene, 530, 2), (true, Some(ms(250))));
    // The writer itself has become a standby: it is not as fresh as its last answer any more.
    scene.answer(0, 540, orphan(110));
    assert_eq!(proven(&mut scene, 540, 0), (false, None));
}
