//! What the guides say of tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// More underscores than the name of any metric or setting has.
const UNDERSCORES: usize = 5;

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder that can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
}

fn texts(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut found = Vec::new();
    files(&workspace.join(folder), extension, &mut found);
    let text = |path: PathBuf| fs::read_to_string(&path).map(|text| (path, text)).expect("a text");
    found.into_iter().map(text).collect()
}

#[test]
fn every_test_that_a_guide_names_exists() {
    let words = |text: &str| -> BTreeSet<String> {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).map(str::to_owned).collect()
    };
    let known: BTreeSet<String> = texts(".", "rs").iter().flat_map(|(_, text)| words(text)).collect();
    let mut named = 0;
    for (path, text) in texts("docs", "md") {
        // Every second piece stands between backquotes.
        for name in text.split('`').skip(1).step_by(2) {
            let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if is_name && name.matches('_').count() >= UNDERSCORES {
                named += 1;
                assert!(known.contains(name), "{} names {name}, which does not exist", path.display());
            }
        }
    }
    assert!(named > 0, "guides name tests");
}
