//! Templates: a stopped cluster whose files new ones begin with, so that tests do not wait for `initdb`.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    account::Account, cluster::LocalCluster, command::Tools, error::UpError, layout::Layout,
    node::NodeRecord, options::ClusterOptions, progress::SilentProgress, state::State,
};

/// Tells those who make a template in one process apart.
static MAKERS: AtomicU32 = AtomicU32::new(0);

/// A stopped cluster of one node.
#[derive(Debug)]
pub(crate) struct Template {
    layout: Layout,
    data_dir: PathBuf,
}

impl Template {
    /// The template of this release in `folder`, made first where there is none. It is made beside the cluster that needs
    /// it, since the servers' user can get there.
    pub(crate) async fn find(
        folder: &Path,
        release: u32,
        options: &ClusterOptions,
    ) -> Result<Template, UpError> {
        let dir = folder.join(format!("postgres-{release}"));
        if !dir.exists() {
            Template::make(&dir, &options.dir).await?;
        }
        let layout = Layout::open(&dir)?;
        let state = State::read(&layout)?;
        let first = state.records(&layout).into_iter().next();
        let data_dir = first.map_or_else(|| layout.data_dir("pg1"), |node| node.data_dir);
        Ok(Template { layout, data_dir })
    }

    async fn make(dir: &Path, beside: &Path) -> Result<(), UpError> {
        let failed = |source| UpError::Template { dir: dir.to_owned(), source };
        let me = format!("{}-{}.new", std::process::id(), MAKERS.fetch_add(1, Ordering::Relaxed));
        let (workshop, unfinished) = (beside.with_extension("template"), dir.with_extension(me));
        let alone =
            ClusterOptions { dir: workshop.clone(), replicas: 0, port: 0, ..ClusterOptions::default() };
        let alone = ClusterOptions { durable: false, ..alone };
        let made = Box::pin(LocalCluster::up(alone, &SilentProgress)).await?;
        let stopped = made.down(false).await;
        let copied = stopped.map_err(io::Error::other).and_then(|()| copy_tree(&workshop, &unfinished, None));
        // Whoever was first has made the same.
        let named = copied.and_then(|()| match fs::rename(&unfinished, dir) {
            Err(_) if dir.exists() => fs::remove_dir_all(&unfinished),
            named => named,
        });
        let removed = fs::remove_dir_all(&workshop);
        named.and(removed).map_err(failed)
    }

    /// The file of the passwords that the template's roles have.
    pub(crate) fn credentials_file(&self) -> PathBuf {
        self.layout.credentials_file()
    }

    /// Gives a node the template's data.
    pub(crate) fn fill(&self, tools: &Tools, node: &NodeRecord) -> io::Result<()> {
        copy_tree(&self.data_dir, &node.data_dir, Some(tools.account()))
    }
}

/// Copies a directory with everything in it, for `account`; modes stay as they are.
fn copy_tree(from: &Path, to: &Path, account: Option<&Account>) -> io::Result<()> {
    let mode = fs::metadata(from)?.mode() & 0o777;
    fs::DirBuilder::new().recursive(true).mode(mode).create(to)?;
    account.map_or(Ok(()), |account| account.own_path(to))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_tree(&source, &target, account)?;
        } else {
            fs::copy(&source, &target)?;
            account.map_or(Ok(()), |account| account.own_path(&target))?;
        }
    }
    Ok(())
}
