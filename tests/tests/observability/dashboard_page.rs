//! The dashboard in a real browser.

use routing_tests::{PATIENCE, TestCluster, eventually};
use serde_json::json;

use crate::browser::Browser;
use crate::screener::{Screener, output};

const LIVE: &str = "document.getElementById('connection')?.textContent.startsWith('Live') === true";

async fn opened(screener: &Screener) -> Browser {
    let browser = Browser::start().await;
    browser.size(1280, 900).await;
    browser.scheme("light").await;
    browser.open(&screener.url("/routing/dashboard")).await;
    browser.until("the page is live", LIVE).await;
    browser
}

/// What the page says of a node under a term.
fn figure(node: &str, term: &str) -> String {
    format!(
        "[...document.querySelectorAll('#nodes [data-node={node}] dt')]
            .find((dt) => dt.textContent === '{term}').nextElementSibling.textContent"
    )
}

/// Whether the page is wider than the window, and what of it.
const TOO_WIDE: &str = "(() => {
    const wide = [...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > innerWidth + 1);
    const scrolls = document.documentElement.scrollWidth > innerWidth;
    return (scrolls ? ['the page'] : []).concat(wide.map((one) => one.outerHTML.slice(0, 80))).join('; ');
})()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_what_the_status_says_and_a_lost_replica_in_red() {
    let cluster = TestCluster::start().await;
    let screener = Screener::start(&cluster, "warn").await;
    let browser = opened(&screener).await;
    let pictures = output();
    for _ in 0..5 {
        screener.load(40).await;
        browser.until("the next figures", "new Promise((done) => setTimeout(() => done(true), 1000))").await;
    }

    // The counts stand still now, so both show the same.
    let status = screener.status().await;
    for node in status["nodes"].as_array().unwrap() {
        let name = node["name"].as_str().unwrap();
        let last = node["last_reason"].as_str().unwrap_or("none yet").replace('_', " ");
        let pool = &node["read_pool"];
        let idle = format!("{} idle of {}", pool["idle"], pool["max"]);
        let address = node["address"].as_str().unwrap();
        for (term, shown) in [("Last reason", last), ("Read pool", idle), ("Address", address.to_owned())] {
            let expression = format!("{}.includes({})", figure(name, term), json!(shown));
            browser.until(&format!("{term} of {name}: {shown}"), &expression).await;
        }
        let position = format!("timeline {}", node["timeline"]);
        browser.until("its position", &format!("{}.includes('{position}')", figure(name, "Position"))).await;
    }
    let reads = |reason: &str| {
        let counts =
            status["nodes"].as_array().unwrap().iter().flat_map(|node| node["decisions"].as_array().unwrap());
        counts
            .filter(|count| count["reason"] == reason)
            .map(|count| count["count"].as_u64().unwrap())
            .sum::<u64>()
    };
    let total = reads("least_in_flight");
    assert!(total > 0, "{status}");
    let shown = format!(
        "[...document.querySelectorAll('#reasons li')]
            .some((one) => one.textContent.startsWith('least in flight (read){total}: '))"
    );
    browser.until("decisions by reason agree", &shown).await;
    browser.until("primary", "document.getElementById('summary').textContent.includes('Primarypg1')").await;
    let lines = "document.querySelectorAll('#staleness path.series[d*=L]').length";
    assert_eq!(browser.value(lines).await, json!(2), "a line for each replica");
    let limit = "document.querySelectorAll('#lag .limit, #staleness .limit').length";
    assert_eq!(browser.value(limit).await, json!(2), "a threshold in each chart");

    cluster.sql("pg3", "SELECT pg_wal_replay_pause()").await;
    screener.load(5).await;
    let stale =
        "document.querySelector('#nodes [data-node=pg3] .state').textContent.includes('not serving: stale')";
    browser.until("a replica that replays nothing is stale", stale).await;
    browser.until("an event", "document.getElementById('events').textContent.includes('stale')").await;
    cluster.sql("pg3", "SELECT pg_wal_replay_resume()").await;
    browser
        .until(
            "it is fresh again",
            "document.querySelector('#nodes [data-node=pg3]').classList.contains('serving')",
        )
        .await;
    screener.load(20).await;

    cluster.kill("pg2").await;
    let red = "(() => {
        const card = document.querySelector('#nodes [data-node=pg2]');
        const drawn = document.querySelector('#topology [data-node=pg2] rect');
        return card.classList.contains('refused') && card.textContent.includes('not serving: down')
            && drawn.classList.contains('refused');
    })()";
    let took = browser.until("the killed replica is red", red).await;
    eprintln!("gap | dashboard | a killed replica is red after | {} ms", took.as_millis());
    let colours = "(() => {
        const colour = (name) => getComputedStyle(document.querySelector(`#topology [data-node=${name}] rect`)).stroke;
        return colour('pg2') !== colour('pg3');
    })()";
    assert_eq!(browser.value(colours).await, json!(true));
    browser
        .until(
            "it says since when",
            "document.querySelector('#nodes [data-node=pg2] .state').textContent.includes('(for ')",
        )
        .await;
    browser.until("an event", "document.getElementById('events').textContent.includes('pg2')").await;
    browser.until("it is on the time axis", "document.querySelector('#lag .mark') !== null").await;
    screener.load(20).await;
    browser.until("the next figures", "new Promise((done) => setTimeout(() => done(true), 1500))").await;
    browser.picture(&pictures.join("wide-light.png")).await;
    browser.scheme("dark").await;
    browser.picture(&pictures.join("wide-dark.png")).await;

    cluster.start_node("pg2").await;
    let back = "document.querySelector('#nodes [data-node=pg2]').classList.contains('serving')";
    browser.until("it serves again", back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_fits_a_phone_follows_the_scheme_obeys_keys_and_tells_that_the_server_is_gone() {
    let cluster = TestCluster::start().await;
    let mut screener = Screener::start(&cluster, "warn").await;
    screener.load(20).await;
    let browser = opened(&screener).await;
    let pictures = output();

    let background = "getComputedStyle(document.body).backgroundColor";
    let light = browser.value(background).await;
    browser.scheme("dark").await;
    assert_ne!(browser.value(background).await, light, "dark mode has its own colours");

    for (width, height) in [(375, 812), (320, 568), (768, 1024), (1280, 900)] {
        browser.size(width, height).await;
        // A picture of the new width is drawn with the next answer at the latest.
        eventually(PATIENCE, &format!("nothing is wider than {width} pixels"), async || {
            let wide = browser.value(TOO_WIDE).await;
            if wide != json!("") {
                eprintln!("{width}: {wide}");
            }
            wide == json!("")
        })
        .await;
        if width == 375 {
            browser.picture(&pictures.join("phone-dark.png")).await;
            browser.scheme("light").await;
            browser.picture(&pictures.join("phone-light.png")).await;
        }
    }

    let named = "[...document.querySelectorAll('button, input, svg, meter, progress')].filter((one) =>
        !(one.getAttribute('aria-label') || one.textContent.trim() || one.getAttribute('aria-hidden') || one.labels?.length))
        .map((one) => one.outerHTML.slice(0, 80)).join('; ')";
    assert_eq!(browser.value(named).await, json!(""), "everything has a name");
    browser.press("Tab", 9).await;
    assert_eq!(browser.value("document.activeElement.id").await, json!("pause"));
    browser.press("Tab", 9).await;
    assert_eq!(browser.value("document.activeElement.id").await, json!("cursor"));
    browser.press("ArrowLeft", 37).await;
    browser.until("a key moves the cursor", "document.querySelector('#lag .cursor') !== null").await;
    let unfold = "(() => { const one = document.querySelector('#nodes summary'); one.focus(); one.click(); return true; })()";
    browser.value(unfold).await;
    browser.until("the next figures", "new Promise((done) => setTimeout(() => done(true), 2500))").await;
    let kept =
        "document.activeElement.tagName === 'SUMMARY' && document.querySelector('#nodes details').open";
    assert_eq!(browser.value(kept).await, json!(true), "new figures take no focus and fold nothing");

    screener.kill();
    let told = "(() => {
        const told = document.getElementById('alert');
        return !told.hidden && told.textContent.includes('has not answered since')
            && document.getElementById('figures').classList.contains('old');
    })()";
    browser.until("the page says that the server is gone", told).await;
    browser.picture(&pictures.join("gone.png")).await;
    let kept = "document.querySelectorAll('#nodes [data-node]').length";
    assert_eq!(browser.value(kept).await, json!(3), "the last figures stay");
}
