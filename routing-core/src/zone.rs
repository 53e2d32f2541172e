//! Reads prefer the zone of the process.

/// A node among which is chosen, as far as zones are concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    /// It is in the zone of this process, or no zone is set.
    pub(crate) local: bool,
    /// It has room for one more read.
    pub(crate) room: bool,
}

impl Placed {
    /// A node with so many requests in flight, for whose reads there are so many connections, in so far as its slow start
    /// lets it have them.
    pub(crate) fn new(local: bool, in_flight: u32, connections: u32, ramp: f32) -> Self {
        let room = f64::from(in_flight) < (f64::from(connections) * f64::from(ramp)).round().max(1.0);
        Self { local, room }
    }
}

/// Whether only nodes of the own zone are chosen from: one of them has room. When all of them are full, the next read would
/// wait for a connection, and costs less in another zone.
pub(crate) fn stays(mut nodes: impl Iterator<Item = Placed>) -> bool {
    nodes.any(|node| node.local && node.room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stay_in_their_zone_while_a_node_there_has_room() {
        let of = |local, in_flight, ramp| Placed::new(local, in_flight, 20, ramp);
        let table: [(&[Placed], bool); 7] = [
            (&[], false),
            (&[of(true, 0, 1.0), of(false, 0, 1.0)], true),
            (&[of(true, 19, 1.0), of(false, 0, 1.0)], true),
            (&[of(true, 20, 1.0), of(false, 0, 1.0)], false),
            (&[of(true, 20, 1.0), of(true, 3, 1.0), of(false, 0, 1.0)], true),
            (&[of(true, 2, 0.1), of(false, 0, 1.0)], false),
            (&[of(false, 0, 1.0)], false),
        ];
        for (nodes, expected) in table {
            assert_eq!(stays(nodes.iter().copied()), expected, "{nodes:?}");
        }
    }
}
