//! A configuration file: no text makes the reader or the rules panic, and none prints a password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use routing_core::RouterConfig;

const PASSWORD: &str = "hunter2";

fuzz_target!(|text: &str| {
    if text.contains(PASSWORD) {
        return;
    }
    look_at(text);
    look_at(&format!("{text}\n[[nodes]]\nname = 'a'\nurl = 'postgres://app:{PASSWORD}@h/d'\n"));
    look_at(&format!("nodes = [{{ url = 'postgres://app:{PASSWORD}@h/d' }}]\n{text}"));
});

fn look_at(text: &str) {
    let config = match RouterConfig::from_toml(text) {
        Ok(config) => config,
        Err(error) => return hides(&format!("{error} {error:?}")),
    };
    hides(&format!("{config:?}"));
    assert!(config.nodes.iter().all(|node| !node.name.is_empty()), "every node has a name");
    match config.validate() {
        // What is derived from a valid configuration exists.
        Ok(()) => {
            assert!(!config.nodes.is_empty());
            let (_, _, _) =
                (config.writer_lease(), config.fallback_no_replica(), config.fallback_behind_token());
        }
        Err(error) => hides(&format!("{error} {error:?}")),
    }
}

fn hides(shown: &str) {
    assert!(!shown.contains(PASSWORD), "the password shows: {shown}");
}
