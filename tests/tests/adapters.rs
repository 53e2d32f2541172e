//! Whoever knows one adapter knows the other.

use std::collections::BTreeSet;
use std::path::Path;

fn files(adapter: &str) -> BTreeSet<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(adapter).join("src");
    let entries = std::fs::read_dir(source).expect("the adapter's sources");
    let names = entries.map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned());
    // Diesel's statements are not seen before they have a connection: it can have no automatic handle. Its warnings are read
    // off the wire, which sqlx does not show; it can send cancel requests, whose key sqlx keeps to itself.
    names.filter(|name| !["automatic.rs", "cancel.rs", "notice.rs"].contains(&name.as_str())).collect()
}

#[test]
fn both_adapters_have_the_same_files() {
    assert_eq!(files("routing-seaorm"), files("routing-diesel"));
}
