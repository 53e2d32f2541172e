//! A full disk, a real one: the table that clients write to lies on a small file system of the primary alone, which is
//! filled.
//!
//! It needs root and PostgreSQL 15 (a tablespace within the data directory). Elsewhere a trigger says what the server would
//! say, SQLSTATE 53100.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use routing_cluster::Login;
use tokio::time::sleep;

use crate::chaos::scene::Scene;

/// What the small file system has room for beside the table: kilobytes.
const ROOM: u64 = 512;

/// A small file system in the place of a directory. Dropping it takes it away.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Puts it over a directory, with so many kilobytes, the same owner and the same directories in it; `None` when that is not allowed.
    fn over(dir: &Path, kilobytes: u64) -> Option<Self> {
        let meta = fs::metadata(dir).ok()?;
        let inner: Vec<_> = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
        let (uid, gid) = (meta.uid(), meta.gid());
        let options = format!("size={kilobytes}k,mode=700,uid={uid},gid={gid}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let disk = Self(dir.to_owned());
        for dir in inner {
            fs::create_dir(&dir).ok()?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).ok()?;
            chown(&dir, Some(uid), Some(gid)).ok()?;
        }
        Some(disk)
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.ballast()).expect("a file");
        while file.write_all(&[0; 512]).is_ok() {}
    }

    fn empty(&self) {
        let _ = fs::remove_file(self.ballast());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Has the primary's disk be full for a time.
pub(super) async fn fill(scene: &Scene, lasts: Duration) {
    match small_disk(scene).await {
        Some(disk) => {
            disk.fill();
            sleep(lasts).await;
            disk.empty();
            let sql = |sql| scene.cluster.sql(scene.primary, sql);
            sql("ALTER TABLE watchlist SET TABLESPACE pg_default").await;
            sql("ALTER TABLE watchlist RESET (fillfactor)").await;
            // Until then the old file is there, without content.
            sql("CHECKPOINT").await;
            drop(disk);
            sql("DROP TABLESPACE small").await;
        }
        None => {
            eprintln!("    nothing can be mounted here: a trigger says what a full disk says");
            let sql = "CREATE OR REPLACE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                       RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$; \
                       CREATE TRIGGER full_disk BEFORE INSERT ON watchlist EXECUTE FUNCTION full_disk()";
            scene.cluster.sql(scene.primary, sql).await;
            sleep(lasts).await;
            scene.cluster.sql(scene.primary, "DROP TRIGGER full_disk ON watchlist").await;
        }
    }
}

/// The table on a small file system, with so few rows to a page that every few writes need a new one.
async fn small_disk(scene: &Scene) -> Option<SmallDisk> {
    let primary = scene.primary;
    let data = scene.cluster.servers().node(primary).ok()?.data_dir.clone();
    let session = scene.cluster.database(primary, Login::Superuser).await;
    session.run("SET allow_in_place_tablespaces = on").await.ok()?;
    session.run("CREATE TABLESPACE small LOCATION ''").await.ok()?;
    let number: String = session
        .value("SELECT oid::text FROM pg_tablespace WHERE spcname = 'small'")
        .await
        .expect("its number");
    let table: i64 =
        session.value("SELECT pg_total_relation_size('watchlist') / 1024").await.expect("its size");
    let kilobytes = table.unsigned_abs() + ROOM;
    let Some(disk) = SmallDisk::over(&data.join("pg_tblspc").join(number), kilobytes) else {
        session.run("DROP TABLESPACE small").await.expect("it is empty");
        return None;
    };
    session.run("ALTER TABLE watchlist SET (fillfactor = 10)").await.expect("a setting");
    session.run("ALTER TABLE watchlist SET TABLESPACE small").await.expect("it has room there");
    Some(disk)
}
