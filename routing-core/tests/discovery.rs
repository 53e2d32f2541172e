//! Following a discovery, and an authority, on servers in memory and tokio's paused clock.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use routing_core::testing::{FakeBackend, FakeCluster, FakeError, Reach};
use routing_core::{
    Consistency, Discovered, Discovery, DiscoveryError, FileDiscovery, Leader, Lease, NodeConfig, RouteError,
    Router, RouterConfig, Session,
};
use tokio::time::{Instant, sleep};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What a discovery answers, as a test says.
#[derive(Clone)]
enum Answer {
    Nodes(Vec<&'static str>, Option<&'static str>),
    Fails,
    Hangs,
}
use Answer::{Fails, Hangs, Nodes};

struct Told {
    configs: Vec<NodeConfig>,
    authority: bool,
    answer: Mutex<Answer>,
    asked: Mutex<Vec<Instant>>,
}

impl Told {
    fn say(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Discovery for Told {
    fn discover(&self) -> BoxFuture<'_, Result<Discovered, DiscoveryError>> {
        self.asked.lock().unwrap().push(Instant::now());
        let answer = self.answer.lock().unwrap().clone();
        Box::pin(async move {
            match answer {
                Nodes(names, leader) => Ok(Discovered {
                    nodes: names
                        .iter()
                        .map(|name| self.configs.iter().find(|config| config.name == *name).unwrap().clone())
                        .collect(),
                    leader: leader.map(|node| Leader { node: node.into(), timeline: None, running: true }),
                    ask_again: Some(ms(2_000)),
                }),
                Fails => Err(DiscoveryError {
                    asked: "the test".into(),
                    why: "it fails".into(),
                    ask_again: Some(ms(2_000)),
                }),
                Hangs => std::future::pending().await,
            }
        })
    }

    fn is_authority(&self) -> bool {
        self.authority
    }

    fn kind(&self) -> &'static str {
        "told"
    }
}

struct Scene {
    servers: FakeCluster,
    router: Router<FakeBackend>,
    told: Arc<Told>,
}

impl Scene {
    /// Four servers; the router begins with three of them.
    async fn new(authority: bool, answer: Answer, change: impl FnOnce(&mut RouterConfig)) -> Self {
        let servers = FakeCluster::new(3);
        let mut config = servers.config();
        let told = Arc::new(Told {
            configs: config.nodes.clone(),
            authority,
            answer: Mutex::new(answer),
            asked: Mutex::default(),
        });
        config.nodes.truncate(3);
        config.write_wait = ms(800);
        change(&mut config);
        let router = Router::<FakeBackend>::start(config, servers.clone()).unwrap();
        router.cluster().follow(told.clone());
        assert!(router.cluster().settled(Duration::from_secs(5)).await);
        Self { servers, router, told }
    }

    fn names(&self) -> Vec<String> {
        self.router.cluster().nodes().iter().map(|node| node.name().to_owned()).collect()
    }

    async fn write(&self) -> Result<String, FakeError> {
        let write = async |lease: &mut Lease<FakeBackend>| {
            lease.write().await?;
            Ok::<_, FakeError>(lease.node().name().to_owned())
        };
        self.router.routed(Session::new(), Consistency::Session).run_statement(write).await
    }

    async fn refused(&self) -> RouteError {
        match self.write().await.unwrap_err() {
            FakeError::Route(error) => error,
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_follow_what_is_found_and_an_empty_failed_or_late_answer_changes_nothing() {
    let scene = Scene::new(false, Nodes(vec!["pg1", "pg2", "pg3"], None), |_| {}).await;
    let found = async |answer: Answer| {
        scene.told.say(answer);
        sleep(ms(7_000)).await;
        scene.names()
    };
    assert_eq!(found(Nodes(vec!["pg1", "pg2", "pg3", "pg4"], None)).await, ["pg1", "pg2", "pg3", "pg4"]);
    assert_eq!(found(Nodes(vec!["pg1", "pg4"], None)).await, ["pg1", "pg4"]);
    for bad in [Nodes(Vec::new(), None), Fails, Hangs] {
        assert_eq!(found(bad).await, ["pg1", "pg4"], "the last good list stays");
        assert!(scene.router.status().discovery.unwrap().error.is_some());
        assert_eq!(scene.write().await.unwrap(), "pg1");
    }
    // The same server under two names breaks no rule; a name twice does, and nothing of such a list is taken over.
    assert_eq!(found(Nodes(vec!["pg1", "pg2", "pg2"], None)).await, ["pg1", "pg4"]);
    assert_eq!(found(Nodes(vec!["pg1", "pg2"], None)).await, ["pg1", "pg2"]);
    let status = scene.router.status().discovery.unwrap();
    assert_eq!((status.kind, status.error), ("told", None));
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_in_its_time_and_on_request_and_left_aside_while_frozen() {
    let scene = Scene::new(false, Nodes(vec!["pg1", "pg2", "pg3"], None), |_| {}).await;
    let before = scene.told.asked();
    sleep(Duration::from_secs(60)).await;
    let asked = scene.told.asked() - before;
    assert!((24..=38).contains(&asked), "every two seconds, more or less: {asked}");
    let cluster = scene.router.cluster();
    scene.told.say(Nodes(vec!["pg1", "pg2"], None));
    cluster.rediscover();
    sleep(ms(250)).await;
    assert_eq!(scene.names(), ["pg1", "pg2"], "not at the next tick");
    cluster.freeze_discovery(true);
    scene.told.say(Nodes(vec!["pg1", "pg4"], None));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(scene.names(), ["pg1", "pg2"]);
    assert!(scene.router.status().discovery.unwrap().frozen);
    cluster.freeze_discovery(false);
    sleep(ms(250)).await;
    assert_eq!(scene.names(), ["pg1", "pg4"]);
    scene.router.close();
    sleep(Duration::from_secs(3)).await;
    let asked = scene.told.asked();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(scene.told.asked(), asked, "a closed router asks nobody");
}

#[tokio::test(start_paused = true)]
async fn another_discovery_takes_the_place_of_the_first() {
    let scene = Scene::new(false, Nodes(vec!["pg1", "pg2", "pg3"], None), |_| {}).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let list = |names: &[u16]| {
        let nodes = names
            .iter()
            .map(|n| format!("[[nodes]]\nname = 'pg{n}'\nurl = 'postgres://app@10.0.0.{n}/app'\n"));
        std::fs::write(file.path(), nodes.collect::<String>()).unwrap();
    };
    list(&[1, 4]);
    scene.router.cluster().follow(Arc::new(FileDiscovery::new(file.path())));
    sleep(ms(300)).await;
    let asked = scene.told.asked();
    assert_eq!(scene.names(), ["pg1", "pg4"]);
    list(&[1, 2, 3]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(scene.names(), ["pg1", "pg4"], "a file is read on request");
    scene.router.cluster().rediscover();
    sleep(ms(300)).await;
    assert_eq!(scene.names(), ["pg1", "pg2", "pg3"]);
    assert_eq!(scene.told.asked(), asked, "the first is asked no more");
}

#[tokio::test(start_paused = true)]
async fn a_configuration_can_begin_with_what_is_found() {
    let configs = FakeCluster::new(1).config().nodes;
    let told = Told { configs, authority: false, answer: Mutex::new(Fails), asked: Mutex::default() };
    let failed = RouterConfig::default().discovered(&told).await.unwrap_err();
    assert_eq!(failed.to_string(), "the test does not say which servers there are: it fails");
    told.say(Hangs);
    assert!(RouterConfig::default().discovered(&told).await.is_err());
    told.say(Nodes(Vec::new(), None));
    assert!(RouterConfig::default().discovered(&told).await.is_err());
    told.say(Nodes(vec!["pg1", "pg2"], None));
    assert_eq!(RouterConfig::default().discovered(&told).await.unwrap().nodes.len(), 2);
}

const ALL: [&str; 3] = ["pg1", "pg2", "pg3"];

fn led_by(leader: &'static str) -> Answer {
    Nodes(ALL.to_vec(), Some(leader))
}

#[tokio::test(start_paused = true)]
async fn the_leader_alone_is_written_to() {
    let scene = Scene::new(true, led_by("pg1"), |_| {}).await;
    assert_eq!(scene.write().await.unwrap(), "pg1");
    assert_eq!(scene.router.status().discovery.unwrap().leader.as_deref(), Some("pg1"));
    // It lets another one lead, which is not writable yet: nobody is written to.
    scene.told.say(led_by("pg2"));
    sleep(ms(3_000)).await;
    let error = scene.refused().await.to_string();
    assert!(
        error.contains(
            "pg1: claims to be the primary on timeline 1, but the authority lets another node lead"
        ),
        "{error}"
    );
    scene.servers.follow("pg3", "pg2");
    scene.servers.promote("pg2");
    assert_eq!(scene.write().await.unwrap(), "pg2");
}

#[tokio::test(start_paused = true)]
async fn a_promotion_is_believed_as_soon_as_the_authority_confirms_it() {
    let scene = Scene::new(true, led_by("pg1"), |_| {}).await;
    scene.servers.server("pg1").set_reach(Reach::Refused);
    sleep(ms(700)).await;
    scene.told.say(led_by("pg2"));
    scene.servers.follow("pg3", "pg2");
    scene.servers.promote("pg2");
    let promoted = Instant::now();
    assert_eq!(scene.write().await.unwrap(), "pg2");
    assert!(promoted.elapsed() < ms(400), "it is asked at once: {:?}", promoted.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_rogue_promotion_is_not_believed_even_with_a_follower() {
    let scene = Scene::new(true, led_by("pg1"), |_| {}).await;
    scene.servers.follow("pg3", "pg2");
    scene.servers.promote("pg2");
    for _ in 0..20 {
        sleep(ms(200)).await;
        assert_eq!(scene.write().await.unwrap(), "pg1");
    }
    assert_eq!(scene.router.status().epoch, 1);
}

#[tokio::test(start_paused = true)]
async fn its_silence_stops_nothing_that_the_servers_confirm() {
    let scene = Scene::new(true, led_by("pg1"), |_| {}).await;
    for silence in [Fails, Hangs, Nodes(ALL.to_vec(), None)] {
        scene.told.say(silence);
        for _ in 0..25 {
            sleep(ms(200)).await;
            assert_eq!(scene.write().await.unwrap(), "pg1");
        }
    }
    // A failover meanwhile is followed a little later: it was given the time to answer.
    scene.told.say(Fails);
    scene.servers.server("pg1").set_reach(Reach::Refused);
    sleep(ms(500)).await;
    scene.servers.follow("pg3", "pg2");
    scene.servers.promote("pg2");
    sleep(ms(2_500)).await;
    assert_eq!(scene.write().await.unwrap(), "pg2");
}

#[tokio::test(start_paused = true)]
async fn where_it_is_required_its_silence_stops_writes_and_no_reads() {
    let scene = Scene::new(true, led_by("pg1"), |config| config.authority_required = true).await;
    assert_eq!(scene.write().await.unwrap(), "pg1");
    scene.told.say(Fails);
    sleep(ms(3_000)).await;
    let error = scene.refused().await.to_string();
    assert!(error.contains("the authority, which is required, names no leader"), "{error}");
    assert!(scene.router.read(Consistency::Eventual).await.is_ok());
    scene.told.say(led_by("pg1"));
    sleep(ms(3_000)).await;
    assert_eq!(scene.write().await.unwrap(), "pg1");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_again_and_again_serves_less_and_less() {
    let scene = Scene::new(false, Nodes(vec!["pg1", "pg2", "pg3"], None), |_| {}).await;
    let pg2 = scene.servers.server("pg2").clone();
    let serves = || scene.router.status().nodes.iter().any(|node| node.name == "pg2" && node.serving);
    let mut up = Vec::new();
    for _ in 0..8 {
        pg2.set_reach(Reach::Refused);
        sleep(ms(1_000)).await;
        assert!(!serves());
        pg2.set_reach(Reach::Up);
        // Up for three seconds each time.
        let mut served = 0;
        for _ in 0..30 {
            sleep(ms(100)).await;
            served += u32::from(serves());
        }
        up.push(served);
    }
    assert!(up[0] > 20, "the first return costs nothing: {up:?}");
    assert!(up.windows(2).all(|pair| pair[1] <= pair[0]), "{up:?}");
    assert_eq!(up[3..], [0; 5], "{up:?}");
    let shown = scene.router.status().nodes.into_iter().find(|node| node.name == "pg2").unwrap();
    assert!(shown.refused.unwrap().starts_with("came back again and again"));
    for _ in 0..30 {
        assert_eq!(scene.router.read(Consistency::Eventual).await.unwrap().node().name(), "pg3");
    }
    sleep(Duration::from_secs(31)).await;
    assert!(serves(), "it has stayed up");
}
