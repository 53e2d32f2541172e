//! What `up` is going to do, before it does anything.

use std::{fs, io};

use crate::{
    access::Access,
    archive::{Archive, ArchiveError},
    error::UpError,
    layout::Layout,
    node::NodeRecord,
    options::ClusterOptions,
    ports::Reservation,
    process,
    state::State,
};

/// What the state file says, or a new plan; with the ports of all nodes that do not run reserved.
pub(crate) fn plan(options: &ClusterOptions, layout: &Layout) -> Result<(State, Reservation), UpError> {
    if !layout.is_cluster() {
        return new_plan(options, layout);
    }
    let mut state = State::read(layout)?;
    if let Some(from) = state.restoring {
        return Err(UpError::Restoring { dir: layout.dir().to_owned(), from });
    }
    let records = state.records(layout);
    let runs = |node: &NodeRecord| process::postmaster(&node.data_dir).is_some();
    let may_start = |node: &NodeRecord| state.condition(&node.name).may_start();
    let begins_archive = options.archive && state.archive.is_none() && state.has_data();
    if begins_archive && records.iter().any(runs) {
        return Err(ArchiveError::Running.into());
    }
    if state.change.is_none()
        && state.archive.as_ref().is_none_or(|archive| archive.claimed)
        && state.nodes.iter().all(|node| node.complete)
        && records.iter().all(|node| runs(node) || !may_start(node))
    {
        let remedies = state.remedies();
        return Err(if remedies.is_empty() {
            UpError::AlreadyRunning { dir: layout.dir().display().to_string() }
        } else {
            UpError::Unfit { remedies }
        });
    }
    for (node, record) in state.nodes.iter().zip(&records).filter(|(node, _)| !node.complete) {
        remove_remains(layout, record)
            .map_err(|source| UpError::Remains { node: node.name.clone(), source })?;
    }
    if !state.has_data() {
        // Nothing is left of the attempt before, so it does not bind this one to its ports.
        return new_plan(options, layout);
    }
    let ports: Vec<u16> =
        records.iter().filter(|node| !runs(node) && may_start(node)).map(|node| node.port).collect();
    let reservation = Reservation::of(&ports)?;
    if begins_archive {
        state.archive = Some(Archive::planned(Archive::beside(layout.dir())?)?);
        state.write(layout)?;
    }
    Ok((state, reservation))
}

fn new_plan(options: &ClusterOptions, layout: &Layout) -> Result<(State, Reservation), UpError> {
    let archive = options.archive.then(|| Archive::planned(Archive::beside(layout.dir())?)).transpose()?;
    let count = u16::try_from(options.replicas).unwrap_or(u16::MAX).saturating_add(1);
    let (reservation, ports) = Reservation::neighbours(options.port, count)?;
    let access = Access { tls: options.tls, networks: options.allow.clone() };
    Ok((State::planned(&ports, options.durable, access).with_archive(archive), reservation))
}

/// Ends what an interrupted attempt still runs, and removes what it has written.
fn remove_remains(layout: &Layout, node: &NodeRecord) -> io::Result<()> {
    process::end_family(&node.data_dir)?;
    match fs::remove_dir_all(layout.node_dir(&node.name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
