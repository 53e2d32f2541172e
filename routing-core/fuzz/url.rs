//! A database URL: whatever is wrong with it, its password does not print, and what is right is read the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use routing_core::DatabaseUrl;
use routing_core::tls::Tls;

const PASSWORD: &str = "hunter2";

fuzz_target!(|text: &str| {
    // The parser leaves these out, and reads schemes and hosts in lower case.
    if text.replace(['\t', '\n', '\r'], "").to_ascii_lowercase().contains(PASSWORD) {
        return;
    }
    look_at(text);
    // Whatever stands before and behind it, in the password and after. What looks like the value of a parameter is one.
    let (before, rest) = text.split_once(' ').unwrap_or(("", text));
    let (behind, rest) = rest.split_once(' ').unwrap_or(("", rest));
    if !behind.contains('=') {
        look_at(&format!("postgres://app:{before}{PASSWORD}{behind}@{rest}"));
    }
    look_at(&format!("postgres://app@{rest}?password={before}{PASSWORD}{behind}"));
});

fn look_at(text: &str) {
    let url = match text.parse::<DatabaseUrl>() {
        Ok(url) => url,
        Err(error) => return hides(text, &format!("{error} {error:?}")),
    };
    hides(text, &format!("{url} {url:?}"));
    assert_eq!(url.expose().parse(), Ok(url.clone()), "{text:?} is read the same again");
    let _: Result<DatabaseUrl, _> = url.expose_without_tls().parse();
    let (_, _, _) = (url.user(), url.is_local(), url.database());
    assert!(!url.host().is_empty());
    let other = url.with_credentials("reader", PASSWORD);
    assert_eq!((other.host(), other.port(), other.user().as_str()), (url.host(), url.port(), "reader"));
    hides(text, &format!("{other} {other:?}"));
    // Its errors repeat what the parameters about encryption say, and a password may have been put there.
    let _ = Tls::of(&url);
}

fn hides(text: &str, shown: &str) {
    assert!(!shown.contains(PASSWORD), "{text:?} shows its password: {shown}");
}
