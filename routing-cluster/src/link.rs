//! Files in directories of the servers' user, which root reads and passes on: a link there could lead to what only root may
//! read.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use nix::fcntl::OFlag;

/// Reads a file that is no link.
pub(crate) fn read_unlinked(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut options = fs::OpenOptions::new();
    options.read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_not_read_through() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "root's own").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_unlinked(&file).unwrap(), "root's own");
        assert!(read_unlinked(&link).is_err());
        assert_eq!(read_unlinked(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
