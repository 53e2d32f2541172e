//! Reads prefer replicas of the zone that the process runs in.

use std::collections::BTreeMap;

use routing_core::testing::Reach;
use routing_core::{RouterConfig, Session};
use tokio::time::sleep;

use crate::{Scene, chosen, ms, secs};

const SEED: u64 = 9;

/// pg2 and pg3 stand in the north, as this process does, pg4 and pg5 in the south.
fn zones(config: &mut RouterConfig) {
    config.zone = Some("north".to_owned());
    config.read_pool_size = 4;
    config.slow_start = ms(0);
    for (node, zone) in config.nodes.iter_mut().zip(["north", "north", "north", "south", "south"]) {
        node.zone = Some(zone.to_owned());
    }
}

fn nodes(served: &BTreeMap<String, usize>) -> Vec<&str> {
    served.keys().map(String::as_str).collect()
}

#[tokio::test(start_paused = true)]
async fn reads_stay_in_their_zone_and_leave_it_when_nobody_there_can_serve() {
    let scene = Scene::new(4, zones).await;
    assert_eq!(nodes(&scene.load(200, secs(2), SEED).await.served), ["pg2", "pg3"]);
    scene.servers.server("pg2").set_reach(Reach::Refused);
    sleep(secs(1)).await;
    assert_eq!(nodes(&scene.load(200, secs(2), SEED).await.served), ["pg3"]);
    scene.servers.server("pg3").set_reach(Reach::Refused);
    sleep(secs(1)).await;
    assert_eq!(nodes(&scene.load(200, secs(2), SEED).await.served), ["pg4", "pg5"], "before the primary");
    assert_eq!(scene.read().await.unwrap().1, "other_zone");
    scene.servers.server("pg3").set_reach(Reach::Up);
    sleep(secs(1)).await;
    assert_eq!(nodes(&scene.load(200, secs(2), SEED).await.served), ["pg3"]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_into_the_zone_is_served_by_others() {
    let scene = Scene::new(4, zones).await;
    scene.set_latency(ms(10));
    let mut shares = Vec::new();
    // Eight connections at 10 ms a read serve 800 reads a second.
    for per_second in [100, 400, 1_400] {
        let load = scene.load(per_second, secs(4), SEED).await;
        let south = load.of("pg4") + load.of("pg5");
        eprintln!("zones | {per_second}/s to a zone that serves 800/s | share of the other zone {south:.3}");
        assert_eq!((load.count("pg1"), load.count("-")), (0, 0), "{load:?}");
        shares.push(south);
    }
    assert!(shares[0] < 0.001 && shares[1] < 0.06 && (0.4..0.6).contains(&shares[2]), "{shares:?}");
    let spilled = chosen(&scene.node("pg4"), "other_zone", &scene.router);
    assert!(spilled > 1_000, "the reason is seen: {spilled}");
}

#[tokio::test(start_paused = true)]
async fn a_request_keeps_to_its_node_whatever_the_zone() {
    let scene = Scene::new(4, zones).await;
    for node in ["pg2", "pg3"] {
        scene.servers.server(node).set_reach(Reach::Refused);
    }
    sleep(secs(1)).await;
    let request = scene.router.routed(Session::new(), routing_core::Consistency::Session);
    let first = crate::read(&request).await.unwrap();
    for node in ["pg2", "pg3"] {
        scene.servers.server(node).set_reach(Reach::Up);
    }
    sleep(secs(1)).await;
    assert_eq!(crate::read(&request).await.unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn zones_change_while_the_router_runs_and_the_status_shows_them() {
    let scene = Scene::new(4, zones).await;
    let mut config = scene.servers.config();
    zones(&mut config);
    config.nodes[1].zone = None;
    config.nodes[2].zone = Some("south".to_owned());
    config.nodes[4].zone = Some("north".to_owned());
    let change = scene.router.cluster().reload(config.clone()).unwrap();
    assert_eq!(change.adjusted.iter().map(|name| &**name).collect::<Vec<_>>(), ["pg2", "pg3", "pg5"]);
    assert!(scene.router.cluster().reload(config).unwrap().is_empty());
    assert_eq!(nodes(&scene.load(200, secs(1), SEED).await.served), ["pg5"]);
    let status = scene.router.status();
    let shown: Vec<_> = status.nodes.iter().map(|node| node.zone.as_deref()).collect();
    assert_eq!(shown, [Some("north"), None, Some("south"), Some("south"), Some("north")]);
    assert_eq!(status.config.zone.as_deref(), Some("north"));
    // What is added keeps the zones of the others.
    scene.router.cluster().remove_node("pg4").unwrap();
    assert_eq!(scene.router.status().nodes[2].zone.as_deref(), Some("south"));
}
